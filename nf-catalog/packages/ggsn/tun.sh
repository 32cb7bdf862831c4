# The device that users' packets leave by; the program opens it, and its user owns it.
set -e
[ -e /sys/class/net/apn0 ] || ip tuntap add name apn0 mode tun user 5060
ip addr replace <%= self.subnet.gateway %>/<%= self.subnet.prefix %> dev apn0
ip link set apn0 mtu 1400 txqueuelen 5000 up
