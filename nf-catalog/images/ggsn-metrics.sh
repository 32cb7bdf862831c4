#!/bin/bash
# CGI program of busybox httpd: what osmo-ggsn's VTY says of its PDP contexts, and what its device and sockets count, as Prometheus text.
fail() {
    printf 'Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\n%s\n' "$1"
    exit 0
}
{ exec 3<> /dev/tcp/127.0.0.1/4260; } 2> /dev/null || fail 'the VTY is not there yet'
printf 'enable\r\nshow ggsn ggsn0\r\n' >&3
contexts=0 sgsns=0 bound= asked=
while IFS= read -r -t 2 line <&3; do
    line=${line%$'\r'}
    case "$line" in
        *'# show ggsn ggsn0') asked=1 ;;
        'GGSN ggsn0: Bound to '*) bound=1 ;;
        ' (S)GSN '*) sgsns=$((sgsns + 1)) ;;
        '  PDP contexts: '*) contexts=$((contexts + ${line##*: })) ;;
        *'# ') [ -z "$asked" ] || break ;;
    esac
done
[ -n "$bound" ] || fail 'GTP is not bound'

count() { read -r "$1" < "$2"; }
device=/sys/class/net/apn0/statistics
count restarts /var/lib/ggsn/gsn_restart
# What the program writes the kernel receives.
count up $device/rx_packets
count down $device/tx_packets
count down_dropped $device/tx_dropped
# Of the sockets of GTP-C (2123 is 084B) and of users' packets (2152 is 0868).
while read -r _ local _ _ _ _ _ _ _ _ _ _ drops; do
    case "$local" in
        *:084B) control_dropped=$drops ;;
        *:0868) up_dropped=$drops ;;
    esac
done < /proc/net/udp
printf 'Content-Type: text/plain; version=0.0.4\r\n\r\n'
cat << END
ggsn_pdp_contexts $contexts
ggsn_sgsns $sgsns
ggsn_restart_counter $restarts
ggsn_up_packets_total $up
ggsn_down_packets_total $down
ggsn_up_dropped_total $up_dropped
ggsn_down_dropped_total $down_dropped
ggsn_control_dropped_total $control_dropped
END
