# <%= self.name %>: one load of <%= values.rate %> calls/s, then stays, so that its results can be read in /var/log/sipp.
# A restart of the container is a new load. `kill -USR1 $(cat /var/log/sipp/pid)` = no new calls, finish those that are up.
set -eu
cd /var/log/sipp
rm -f -- *
busybox httpd -p "$POD_IP:9090" -h /srv/www
trap 'exit 0' TERM INT
until sipp <%= peers.pcscf.vip %>:<%= peers.pcscf.port %> -sf /etc/sip-load/options.xml -i "$POD_IP" -bind_local -m 1 -default_behaviors all,-bye \
    -recv_timeout 500 -skip_rlimit -nostdin > /dev/null 2>&1 < /dev/null; do sleep 0.2; done
sipp <%= peers.pcscf.vip %>:<%= peers.pcscf.port %> -sf /etc/sip-load/uac.xml -i "$POD_IP" -bind_local -t un \
    -max_socket 12000 -l <%= values.maxCalls %> -skip_rlimit \
    -r <%= values.rate %><% if values.calls > 0 %> -m <%= values.calls %><% endif %> -nostdin \
    -trace_stat -fd 1 -stf stat.csv -trace_rtt -rtt_freq 1 -trace_counts \
    -default_behaviors all,-bye -trace_err -error_file errors.log > /dev/null 2> stderr.log < /dev/null &
sipp=$!
trap 'kill -TERM $sipp 2> /dev/null; exit 0' TERM INT
echo $sipp > pid
ln -s uac_${sipp}_rtt.csv rtt.csv
ln -s uac_${sipp}_counts.csv counts.csv
rc=0
wait $sipp || rc=$?
echo $rc > exit
while :; do sleep 3600 & wait $!; done
