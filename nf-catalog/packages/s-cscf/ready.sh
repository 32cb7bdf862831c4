# It answers over SIP before its Diameter peer is there: ready is who can ask.
kamcmd -s unix:/run/kamailio/ctl cdp.list_peers | grep -q 'State: I_Open'
