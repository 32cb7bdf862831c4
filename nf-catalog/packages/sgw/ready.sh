# Its sockets of GTP-C (2123 is 084B) and of users' packets (2152 is 0868) are there.
grep -q ':084B ' /proc/net/udp && grep -q ':0868 ' /proc/net/udp
