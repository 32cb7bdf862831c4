# freeDiameter gives a peer up for good whose name nobody answers for: after a restart of the machine that may be a moment away.
until getent ahostsv4 <%= peers.diameter.name %>.<%= values.domain %> >/dev/null; do sleep 0.2; done
exec /usr/bin/nextepc-pgwd -f /etc/nextepc/own/pgw.yaml -p /run/nextepc/pgwd.pid
