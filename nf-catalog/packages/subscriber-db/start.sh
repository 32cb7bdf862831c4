# Makes the server's files where the volume has none, and an account that has the databases usrloc_*, whose owners make them.
set -eu
umask 077
password=$(cat /etc/mysql/secret/password)
case $password in
    '' | *[!A-Za-z0-9._~-]*) echo "the password is to be of letters, digits and ._~-" >&2; exit 1 ;;
esac
if [ ! -d /var/lib/mysql/db ]; then
    rm -rf /var/lib/mysql/new
    mariadb-install-db --no-defaults --datadir=/var/lib/mysql/new --innodb-log-file-size=16M \
        --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve --force >/dev/null
    sync -f /var/lib/mysql/new
    mv /var/lib/mysql/new /var/lib/mysql/db
fi
# Root cannot log in: this file, which the server runs at each start, speaks for it.
cat > /run/mysqld/init.sql <<END
CREATE USER IF NOT EXISTS cscf@'%' IDENTIFIED BY '$password';
ALTER USER cscf@'%' IDENTIFIED BY '$password';
GRANT ALL PRIVILEGES ON \`usrloc\\_%\`.* TO cscf@'%';
ALTER USER IF EXISTS root@localhost ACCOUNT LOCK;
DROP USER IF EXISTS root@'127.0.0.1', root@'::1';
END
cat > /run/mysqld/client.cnf <<END
[client]
protocol=tcp
host=$POD_IP
port=3306
user=cscf
password=$password
connect-timeout=1
END
exec mariadbd --defaults-file=/etc/mysql/my.cnf
