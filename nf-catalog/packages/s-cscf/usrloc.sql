-- Who is registered, as ims_usrloc_scscf of kamailio 5.6.3 writes and reads it (its module has no statement of it; the names of columns
-- are in its usrloc_db.h). Identities and contacts are compared octet by octet, as in its memory.
CREATE TABLE IF NOT EXISTS impu (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    impu VARCHAR(255) NOT NULL UNIQUE,
    barring INT NOT NULL DEFAULT 0,
    reg_state INT NOT NULL DEFAULT 0,
    ccf1 TEXT, ccf2 TEXT, ecf1 TEXT, ecf2 TEXT,
    ims_subscription_data MEDIUMBLOB
) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS contact (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    contact VARCHAR(512) NOT NULL UNIQUE,
    params TEXT, path TEXT, user_agent TEXT, received TEXT, callid TEXT,
    expires DATETIME
) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS subscriber (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    event INT NOT NULL,
    watcher_contact VARCHAR(400) NOT NULL,
    presentity_uri VARCHAR(255) NOT NULL,
    watcher_uri TEXT, call_id TEXT, from_tag TEXT, to_tag TEXT, record_route TEXT, sockinfo_str TEXT,
    local_cseq INT,
    version INT,
    expires DATETIME,
    UNIQUE (presentity_uri, watcher_contact, event)
) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS impu_contact (
    impu_id INT NOT NULL,
    contact_id INT NOT NULL,
    PRIMARY KEY (impu_id, contact_id),
    FOREIGN KEY (impu_id) REFERENCES impu (id) ON DELETE CASCADE,
    FOREIGN KEY (contact_id) REFERENCES contact (id) ON DELETE CASCADE
);
CREATE TABLE IF NOT EXISTS impu_subscriber (
    impu_id INT NOT NULL,
    subscriber_id INT NOT NULL,
    PRIMARY KEY (impu_id, subscriber_id),
    FOREIGN KEY (impu_id) REFERENCES impu (id) ON DELETE CASCADE,
    FOREIGN KEY (subscriber_id) REFERENCES subscriber (id) ON DELETE CASCADE
);
