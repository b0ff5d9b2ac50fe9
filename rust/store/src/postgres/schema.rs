//! The schema's version: made, migrated, or refused.
//!
//! Migrations are numbered and only go forward. The row of `schema_version` is locked while one runs,
//! so of many processes that meet an old schema at once one migrates, in one transaction. A version
//! that this code does not know is refused.

use std::rc::Rc;

use tokio_postgres::Client;

use super::connection::{Failure, Link, Place, Tried};
use super::trouble::Trouble;

/// One step for each version, from the one before.
const MIGRATIONS: [&str; 2] = [
    include_str!("../sql/postgres_0001.sql"),
    include_str!("../sql/postgres_0002.sql"),
];

/// The version that this code writes.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

/// So often a race with another process that makes the same schema is run again.
const RACES: u32 = 20;

/// Every migration with its number; `sayiir.` stands for the schema.
#[must_use]
pub fn migrations() -> Vec<(i32, &'static str)> {
    (1..).zip(MIGRATIONS).collect()
}

/// The version that is there; 0 when there is none.
async fn version(client: &Client, place: &Place, lock: bool) -> Tried<i32> {
    let known = client
        .query_opt(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = $1 AND table_name = 'schema_version'",
            &[&place.settings.schema],
        )
        .await
        .map_err(|e| Failure::of(place, &e))?;
    if known.is_none() {
        return Ok(0);
    }
    let text = place.text("SELECT version FROM sayiir.schema_version WHERE one = 1");
    let text = if lock {
        format!("{text} FOR UPDATE")
    } else {
        text
    };
    let row = client
        .query_opt(&text, &[])
        .await
        .map_err(|e| Failure::of(place, &e))?;
    Ok(row.map_or(0, |row| row.get(0)))
}

fn newer(place: &Place, found: i32) -> Failure {
    Failure {
        trouble: Trouble::Refused,
        format: true,
        text: format!(
            "PostgreSQL at {}: schema '{}' has version {found}, and this version of sayiir knows up to {VERSION}; \
             use a newer sayiir, or another schema",
            place.address.shown, place.settings.schema
        )
        .into(),
    }
}

/// Checks the schema before the first connection is used, and makes or migrates it if that is wanted.
pub async fn prepare(place: &Rc<Place>) -> Tried<()> {
    let client = Link::bare(place).await?;
    let found = version(&client, place, false).await?;
    if found > VERSION {
        return Err(newer(place, found));
    }
    if found == VERSION {
        return Ok(());
    }
    if !place.settings.migrate {
        return Err(Failure {
            trouble: Trouble::Refused,
            format: true,
            text: format!(
                "PostgreSQL at {}: schema '{}' has version {found}, and this version of sayiir needs {VERSION}; \
                 run 'sayiir migrate'",
                place.address.shown, place.settings.schema
            )
            .into(),
        });
    }
    migrate_with(&client, place).await.map(drop)
}

/// The version that is there, by a connection of its own.
pub async fn found(place: &Rc<Place>) -> Tried<i32> {
    let client = Link::bare(place).await?;
    version(&client, place, false).await
}

/// Brings the schema to this version; answers from which to which.
pub async fn migrate(place: &Rc<Place>) -> Tried<(i32, i32)> {
    let client = Link::bare(place).await?;
    migrate_with(&client, place).await
}

async fn migrate_with(client: &Client, place: &Place) -> Tried<(i32, i32)> {
    let mut races = 0;
    loop {
        match migrate_once(client, place).await {
            Err((failure, true)) if races < RACES => {
                races += 1;
                // Whoever was first is done in a moment; then there is nothing left to do.
                let pause = std::time::Duration::from_millis(20 + (place.token() % 80) as u64);
                tokio::time::sleep(pause).await;
                drop(failure);
            }
            other => return other.map_err(|(failure, _)| failure),
        }
    }
}

/// Once; an error says whether it may be a race with another process.
async fn migrate_once(client: &Client, place: &Place) -> Result<(i32, i32), (Failure, bool)> {
    let run = async |text: &str| {
        client.batch_execute(&place.text(text)).await.map_err(|e| {
            // What somebody else makes at this moment: a schema, a table, a type, a row.
            let race = e.code().is_some_and(|code| {
                matches!(
                    code.code(),
                    "23505" | "42P06" | "42P07" | "42710" | "XX000" | "40001" | "40P01"
                )
            });
            (Failure::of(place, &e), race)
        })
    };
    let schema = format!("CREATE SCHEMA IF NOT EXISTS \"{}\"", place.settings.schema);
    let there = client
        .query_opt(
            "SELECT 1 FROM information_schema.schemata WHERE schema_name = $1",
            &[&place.settings.schema],
        )
        .await
        .map_err(|e| (Failure::of(place, &e), false))?;
    if there.is_none() {
        run(&schema).await?;
    }
    run("CREATE TABLE IF NOT EXISTS sayiir.schema_version (one integer PRIMARY KEY CHECK (one = 1), \
         version integer NOT NULL)")
    .await?;
    run("INSERT INTO sayiir.schema_version (one, version) VALUES (1, 0) ON CONFLICT (one) DO NOTHING")
        .await?;
    run("BEGIN; SET LOCAL lock_timeout = 0").await?;
    let steps = async {
        let before = version(client, place, true)
            .await
            .map_err(|failure| (failure, false))?;
        if before > VERSION {
            return Err((newer(place, before), false));
        }
        for (number, text) in migrations() {
            if number > before {
                run(text).await?;
                run(&format!(
                    "UPDATE sayiir.schema_version SET version = {number} WHERE one = 1"
                ))
                .await?;
            }
        }
        run("COMMIT").await?;
        Ok((before, VERSION))
    };
    let done = steps.await;
    if done.is_err() {
        let _ = client.batch_execute("ROLLBACK").await;
    }
    done
}
