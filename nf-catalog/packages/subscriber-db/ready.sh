# Asks as a CSCF does: over TCP, with the password.
exec mariadb --defaults-file=/run/mysqld/client.cnf --skip-column-names --execute 'SELECT 1' >/dev/null
