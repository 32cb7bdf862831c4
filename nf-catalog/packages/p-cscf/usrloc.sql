-- Who is registered, as ims_usrloc_pcscf of kamailio 5.6.3 writes and reads it (its module has no statement of it; the names of columns
-- are in its usrloc_db.h). It finds a row by aor and received_port; columns of IPsec, which is not used, are left out.
CREATE TABLE IF NOT EXISTS location (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    domain VARCHAR(64) NOT NULL,
    aor VARCHAR(512) NOT NULL,
    host VARCHAR(255), port INT, protocol INT,
    received VARCHAR(255), received_port INT, received_proto INT,
    path TEXT, rinstance TEXT, rx_session_id TEXT, service_routes TEXT, socket TEXT, public_ids TEXT,
    reg_state INT,
    expires DATETIME,
    UNIQUE (aor, received_port)
) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin;
