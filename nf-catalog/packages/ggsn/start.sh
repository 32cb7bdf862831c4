# <%= self.instance %>: busybox httpd shows what the VTY says as http://POD_IP:9090/cgi-bin/metrics.
LD_PRELOAD= busybox httpd -p <%= self.address %>:9090 -h /srv/www
exec /usr/bin/osmo-ggsn -c /etc/ggsn/own/ggsn.cfg
