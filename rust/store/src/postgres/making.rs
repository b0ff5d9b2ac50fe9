//! Submits of a batch as one statement, and instances that are made in the hands of a worker.
//!
//! A claim that goes out with submits, and that nothing was ready for a moment ago, would take what they
//! make: an insert, and an update of the same row that moves it to other indexes. Such instances are
//! *granted*: made as that claim would leave them.
//!
//! The invariant: a claim is granted no more than it asked for, only what it could have claimed, and only
//! if whatever was ready when it last looked was taken; the same transaction looks again, with the rest of
//! what it asked for. So what became ready elsewhere since that look may have to wait for the next
//! claim, but never for two. A grant bears the claim's token like everything it takes, so a lost answer is
//! found out about in the same way.

use super::connection::{Link, Place, Tried};
use super::group::{Lanes, Param};
use super::statements as sql;
use crate::contract::NewInstance;

/// Which submits of a batch a claim gets.
#[derive(Debug, Default)]
pub struct Grants<'a> {
    /// For each submit.
    granted: Vec<bool>,
    /// The claim's worker and its token.
    to: Option<(&'a str, i64)>,
}

impl<'a> Grants<'a> {
    /// At most `most` of these, those first that would be claimed first.
    pub fn choose(
        (worker, token): (&'a str, i64),
        served: &[i32],
        most: i64,
        (news, lanes): (&[(&NewInstance, i64)], &Lanes),
    ) -> Self {
        let mut places: Vec<(u8, usize)> = news
            .iter()
            .enumerate()
            .filter(|(_, (new, _))| {
                new.start_at_us.is_none()
                    && lanes
                        .numbers(&new.hash, &new.needs.0)
                        .is_some_and(|(_, lane)| served.binary_search(&lane).is_ok())
            })
            .map(|(at, (new, _))| (new.needs.1, at))
            .collect();
        places.sort_unstable();
        places.truncate(usize::try_from(most).unwrap_or(0));
        let mut granted = vec![false; news.len()];
        for (_, at) in &places {
            granted[*at] = true;
        }
        Self {
            granted,
            to: (!places.is_empty()).then_some((worker, token)),
        }
    }

    /// How many.
    pub fn count(&self) -> i64 {
        self.granted.iter().filter(|granted| **granted).count() as i64
    }

    /// Whether the submit of this number is among them.
    fn holds(&self, at: usize) -> bool {
        self.granted.get(at).copied().unwrap_or(false)
    }
}

/// An instance that a batch made.
#[derive(Debug)]
pub struct Made {
    /// Its id.
    pub id: String,
    /// Its number.
    pub instance: i64,
    /// Its fence.
    pub fence: i64,
    /// The worker that has it already.
    pub holder: Option<i32>,
    /// Whether events wait for it.
    pub events: bool,
}

/// Inserts instances whose ids are free; answers which.
pub async fn create(
    link: &Link,
    place: &Place,
    news: &[(&NewInstance, i64)],
    now: Option<i64>,
    lanes: &Lanes,
    grants: &Grants<'_>,
) -> Tried<Vec<Made>> {
    let numbers: Vec<(i32, i32)> = news
        .iter()
        .map(|(new, _)| lanes.numbers(&new.hash, &new.needs.0).unwrap_or_default())
        .collect();
    let granted: Vec<bool> = (0..news.len()).map(|at| grants.holds(at)).collect();
    let params: [Param<'_>; 12] = [
        &news.iter().map(|(new, _)| &*new.id).collect::<Vec<_>>(),
        &numbers
            .iter()
            .map(|(definition, _)| *definition)
            .collect::<Vec<_>>(),
        &numbers.iter().map(|(_, lane)| *lane).collect::<Vec<_>>(),
        &news
            .iter()
            .map(|(new, _)| i16::from(new.needs.1))
            .collect::<Vec<_>>(),
        &news
            .iter()
            .map(|(new, _)| new.start_at_us)
            .collect::<Vec<_>>(),
        &news
            .iter()
            .map(|(new, _)| &new.input[..])
            .collect::<Vec<_>>(),
        &news.iter().map(|(_, token)| *token).collect::<Vec<_>>(),
        &now,
        &place.settings.keep_orphans_us,
        &granted,
        &grants.to.map(|(worker, _)| worker),
        &grants.to.map(|(_, token)| token),
    ];
    let rows = link.rows(&sql::SUBMIT, &params).await?;
    Ok(rows
        .iter()
        .map(|row| Made {
            id: row.get(0),
            instance: row.get(1),
            fence: row.get(2),
            holder: row.get(3),
            events: row.get(4),
        })
        .collect())
}
