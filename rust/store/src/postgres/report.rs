//! What an operator wants to know of the server and of the schema.

use std::rc::Rc;
use std::time::Instant;

use super::connection::{Link, Place, Tried};
use super::reading::hash_of;
use super::{schema, statements as sql};
use crate::keeper::wall_us;
use crate::listed::status_of;
use crate::storage::{Fact, Report};

/// Reads it over a connection of its own; counts every instance, so it may take long.
pub async fn report(place: &Rc<Place>) -> Tried<Report> {
    let version = schema::found(place).await?;
    schema::prepare(place).await?;
    let link = Link::connect(place).await?;
    let asked = Instant::now();
    let clock = link.row(&sql::CLOCK, &[]).await?;
    let wall = wall_us() - (asked.elapsed().as_micros() / 2) as i64;
    let skew = clock.map_or(0, |row| wall - row.get::<_, i64>(0));
    let state = link.row(&sql::STATE, &[&place.settings.schema]).await?;
    let mut report = Report::default();
    let seconds = |us: i64| Fact::Seconds(us as f64 / 1e6);
    report.facts = vec![
        ("server", Fact::Text(place.address.shown.clone())),
        ("schema", Fact::Text(place.settings.schema.clone())),
        ("schema_version", Fact::Number(i64::from(version))),
    ];
    if let Some(row) = state {
        let now: i64 = row.get(2);
        report.facts.extend([
            ("server_version", Fact::Text(row.get(0))),
            ("database_bytes", Fact::Number(row.get(1))),
            ("clock_skew", seconds(skew)),
            ("connections", Fact::Number(row.get(3))),
            ("dead_rows", Fact::Number(row.get(5))),
        ]);
        if let Some(oldest) = row.get::<_, Option<i64>>(4) {
            report
                .facts
                .push(("ready_oldest_age", seconds((now - oldest).max(0))));
        }
    }
    for row in link.rows(&sql::COUNTS, &[]).await? {
        let status = status_of(row.get::<_, i16>(0).into());
        report.instances.push((status.word(), row.get(1)));
    }
    for row in link.rows(&sql::WORKERS, &[]).await? {
        report.workers.push((row.get(0), row.get(1), row.get(2)));
    }
    for row in link.rows(&sql::BY_DEFINITION, &[]).await? {
        let hash = hash_of(place, &row, 0)?;
        report.definitions.push((hash, row.get(1), row.get(2)));
    }
    Ok(report)
}
