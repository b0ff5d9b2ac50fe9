-- Version 2 of the SQLite schema: items of spread maps, which are instances of their own.

-- One use of a spread map. "remaining" counts the items that have not ended, those not yet made
-- included. It is zero once the parent was told that all have, or does not await them any more; and
-- negative once it was told that one has failed, in a group that fails fast.
CREATE TABLE item_groups (
    parent     INTEGER NOT NULL,    -- the number of its instance
    item_group INTEGER NOT NULL,
    total      INTEGER NOT NULL,
    remaining  INTEGER NOT NULL,
    fail_fast  INTEGER NOT NULL,
    PRIMARY KEY (parent, item_group)
) STRICT, WITHOUT ROWID;

-- Which instance is which item. They go when their parent goes; age alone never removes them.
CREATE TABLE items (
    item       INTEGER PRIMARY KEY, -- the number of its instance
    parent     INTEGER NOT NULL,
    item_group INTEGER NOT NULL,
    position   INTEGER NOT NULL     -- from 0
) STRICT;
CREATE UNIQUE INDEX items_by_parent ON items (parent, item_group, position);

CREATE VIEW items_readable AS
SELECT p.id AS parent,
       t.item_group,
       t.position,
       r.id,
       r.status
FROM items t
JOIN instances p ON p.instance = t.parent
JOIN instances i ON i.instance = t.item
JOIN instances_readable r ON r.id = i.id;
