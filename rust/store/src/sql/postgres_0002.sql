-- Version 2 of the PostgreSQL schema: items of spread maps, which are instances of their own.

-- One use of a spread map. "remaining" counts the items that have not ended, those not yet made
-- included. It is zero once the parent was told that all have, or does not await them any more; and
-- negative once it was told that one has failed, in a group that fails fast.
CREATE TABLE sayiir.item_groups (
    parent     bigint  NOT NULL,    -- the number of its instance
    item_group integer NOT NULL,
    total      integer NOT NULL,
    remaining  integer NOT NULL,
    fail_fast  boolean NOT NULL,
    PRIMARY KEY (parent, item_group)
) WITH (fillfactor = 50);

-- Which instance is which item. They go when their parent goes; age alone never removes them.
CREATE TABLE sayiir.items (
    parent     bigint  NOT NULL,
    item_group integer NOT NULL,
    position   integer NOT NULL,    -- from 0
    item       bigint  NOT NULL,    -- the number of its instance
    PRIMARY KEY (parent, item_group, position)
);
CREATE INDEX items_by_item ON sayiir.items (item);

CREATE VIEW sayiir.items_readable AS
SELECT p.id AS parent,
       t.item_group,
       t.position,
       i.id,
       CASE i.status WHEN 0 THEN 'in_progress' WHEN 1 THEN 'waiting' WHEN 2 THEN 'awaiting_signal'
                     WHEN 3 THEN 'paused' WHEN 4 THEN 'completed' WHEN 5 THEN 'failed'
                     ELSE 'cancelled' END AS status
FROM sayiir.items t
JOIN sayiir.instances p ON p.instance = t.parent
JOIN sayiir.instances i ON i.instance = t.item;
