-- What limits each vendor, model and firmware takes, as learned.

CREATE TABLE ladders (
    vendor TEXT NOT NULL,
    model TEXT NOT NULL,
    firmware TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (vendor, model, firmware)
) STRICT;
