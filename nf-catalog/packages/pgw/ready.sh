# Its sockets of GTP-C (2123 is 084B) and of users' packets (2152 is 0868) are there, and Gx is open (3868 is 0F1C).
grep -q ':084B ' /proc/net/udp && grep -q ':0868 ' /proc/net/udp && grep -q ':0F1C 01' /proc/net/tcp
