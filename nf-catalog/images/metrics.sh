#!/bin/busybox sh
# CGI program of busybox httpd: sipp's statistics (/var/log/sipp) as Prometheus text.
# The application server keeps header and last line in `head` and `last`, the load generator whole files.
cd /var/log/sipp || exit 1
for try in 1 2 3 4 5; do
    if [ -e stat.csv ]; then
        header=$(head -n 1 stat.csv)
        row=$(tail -n 1 stat.csv)
    else
        header=$(cat head 2> /dev/null)
        row=$(cat last 2> /dev/null)
    fi
    case "$row" in [0-9]*\;*) break ;; esac      # else: caught between two writes
    row=
    usleep 50000
done
if [ -z "$row" ]; then
    printf 'Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\nsipp has written no statistics yet\n'
    exit 0
fi
printf 'Content-Type: text/plain; version=0.0.4\r\n\r\n'
printf '%s\n%s\n' "$header" "$row" | busybox awk -F';' '
    NR == 1 { for (i = 1; i <= NF; i++) col[$i] = i; next }
    {
        print "sipp_current_calls " $col["CurrentCall"]
        print "sipp_calls_total " $col["TotalCallCreated"]
        print "sipp_failed_total " $col["FailedCall(C)"]
        print "sipp_unexpected_total " $col["FailedUnexpectedMessage(C)"]
        print "sipp_timeouts_total " $col["FailedMaxUDPRetrans(C)"] + $col["FailedTimeoutOnRecv(C)"]
        print "sipp_out_of_call_total " $col["OutOfCallMsgs(C)"]
        print "sipp_retransmissions_total " $col["Retransmissions(C)"]
    }'
[ -e counts.csv ] || exit 0
{ head -n 1 counts.csv; tail -n 1 counts.csv; } | busybox awk -F';' '
    NR == 1 {
        for (i = 1; i <= NF; i++) {
            if ($i ~ /_200_Recv$/) last = i
            if ($i ~ /^[0-9]+_(INVITE|UPDATE|BYE)_Retrans$/) { split($i, p, "_"); sent[i] = p[2] }
            if ($i ~ /_[0-9]+_Retrans$/) got[i] = 1
        }
        for (i = 1; i <= NF; i++) if (!answered && $i ~ /_200_Recv$/) answered = i
        next
    }
    NF >= last {
        print "sipp_answered_total " $answered
        print "sipp_completed_total " $last
        for (i in sent) print "sipp_request_retransmissions_total{method=\"" sent[i] "\"} " $i
        for (i in got) n += $i
        print "sipp_repeated_responses_total " n + 0
    }'
[ -e rtt.csv ] || exit 0
busybox awk -F';' 'NR > 1 && $2 + 0 > max[$3] + 0 { max[$3] = $2 } NR > 1 { n[$3]++ }
    END { for (k in n) print "sipp_response_max_ms{request=\"" k "\"} " max[k] + 0 }' rtt.csv
