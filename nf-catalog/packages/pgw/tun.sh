# The device that users' packets leave by; the program opens it, and its user owns it.
set -e
[ -e /sys/class/net/pgwtun ] || ip tuntap add name pgwtun mode tun user 5060
ip addr replace <%= self.subnet.gateway %>/<%= self.subnet.prefix %> dev pgwtun
ip link set pgwtun mtu 1400 txqueuelen 5000 up
