# It listens, and is connected to each that it connects to: an agent without servers behind it is not able (port 3868 is 0F1C).
listens() { grep -q ':0F1C 00000000:0000 0A' /proc/net/tcp; }
servers=$(grep -c ':[0-9A-F]* [0-9A-F]*:0F1C 01' /proc/net/tcp)
listens && [ "$servers" -ge <%= (1 if peers.hss is defined else 0) + (1 if peers.pcrf is defined else 0) %> ]
