# <%= self.name %>: sipp answers calls; busybox httpd shows its statistics as http://POD_IP:9090/cgi-bin/metrics.
# sipp writes a line of statistics a second for ever: a named pipe and a loop keep the last one only.
set -eu
cd /var/log/sipp
rm -f stat.pipe head last
mkfifo stat.pipe
{
    IFS= read -r line && printf '%s\n' "$line" > head
    while IFS= read -r line; do printf '%s\n' "$line" > last; done
} < stat.pipe &
busybox httpd -p "$POD_IP:9090" -h /srv/www
sipp -sf /etc/sip-as/uas.xml -i "$POD_IP" -p 5060 -bind_local -nostdin -buff_size 1048576 \
    -trace_stat -fd 1 -stf stat.pipe \
    -trace_err -ringbuffer_files 2 -ringbuffer_size 1000000 -error_file errors.log \
    > /dev/null < /dev/null &
sipp=$!
trap 'kill -TERM $sipp; wait $sipp; exit 0' TERM INT
wait $sipp
