# A peer whose name nobody answers for is given up for good: after a restart of the machine that may be a moment away.
<% for peer in peers|dictsort %><% if peer[0] != "dns" %>until getent ahostsv4 <%= peer[1].name %>.<%= values.domain %> >/dev/null; do sleep 0.2; done
<% endif %><% endfor %>exec /usr/bin/freeDiameterd -c /etc/freeDiameter/freeDiameter.conf
