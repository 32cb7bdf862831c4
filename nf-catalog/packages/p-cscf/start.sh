<% if peers.registrations is defined -%>
# Registrations are kept in a database of the instance's own, whose name is the instance's. The password is in files of this container's
# memory, which its user alone reads, and in no argument.
set -eu
umask 077
password=$(cat /etc/kamailio/secret/password)
case $password in
    '' | *[!A-Za-z0-9._~-]*) echo "the password is to be of letters, digits and ._~-" >&2; exit 1 ;;
esac
server=<%= peers.registrations.name %>.<%= values.domain %>
database=usrloc_$(echo "$POD_NAME" | tr - _)
cat > /run/kamailio/client.cnf <<END
[client]
host=$server
port=<%= peers.registrations.port %>
user=cscf
password=$password
connect-timeout=2
END
cat > /run/kamailio/registrations.cfg <<END
modparam("ims_usrloc_pcscf", "db_url", "mysql://cscf:$password@$server:<%= peers.registrations.port %>/$database")
END
sql() { mariadb --defaults-file=/run/kamailio/client.cnf "$@"; }
until sql -e "CREATE DATABASE IF NOT EXISTS $database" && sql "$database" < /etc/kamailio/usrloc.sql; do sleep 0.5; done
<% endif -%>
exec /usr/sbin/kamailio "$@"
