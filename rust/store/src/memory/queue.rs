//! The ready queue: per definition and set of tags, ordered by priority with ageing.
//!
//! Work that a worker cannot do sits in groups that the worker never looks at, so it never blocks
//! work it can do, however much of it there is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sayiir_core::Bytes;
use sayiir_core::policy::{Tags, covers};

use super::Slot;
use crate::contract::{Backlog, Claimant, Hash};

type Key = (i64, u64, Slot);

#[derive(Debug)]
struct Group {
    tags: Tags,
    ready: BTreeSet<Key>,
}

#[derive(Debug)]
struct Entry {
    hash: Hash,
    workflow: Arc<str>,
    /// As data; empty for items of spread maps, which nobody exports.
    tree: Bytes,
    groups: Vec<Group>,
}

/// Known definitions and what is ready in each.
#[derive(Debug, Default)]
pub struct Queue {
    by_hash: HashMap<Hash, u32>,
    entries: Vec<Entry>,
}

impl Queue {
    /// The index of a definition, made on first sight.
    pub fn definition(&mut self, hash: &Hash, workflow: &Arc<str>, tree: &Bytes) -> u32 {
        if let Some(index) = self.by_hash.get(hash) {
            return *index;
        }
        let index = self.entries.len() as u32;
        self.entries.push(Entry {
            hash: *hash,
            workflow: Arc::clone(workflow),
            tree: Bytes::clone(tree),
            groups: Vec::new(),
        });
        self.by_hash.insert(*hash, index);
        index
    }

    pub fn hash(&self, definition: u32) -> &Hash {
        &self.entries[definition as usize].hash
    }

    pub fn workflow(&self, definition: u32) -> &Arc<str> {
        &self.entries[definition as usize].workflow
    }

    pub fn tree(&self, definition: u32) -> &Bytes {
        &self.entries[definition as usize].tree
    }

    pub fn insert(&mut self, definition: u32, tags: &Tags, order: i64, seq: u64, slot: Slot) {
        let groups = &mut self.entries[definition as usize].groups;
        let group = match groups.iter().position(|group| group.tags == *tags) {
            Some(at) => &mut groups[at],
            None => {
                groups.push(Group {
                    tags: Arc::clone(tags),
                    ready: BTreeSet::new(),
                });
                let last = groups.len() - 1;
                &mut groups[last]
            }
        };
        group.ready.insert((order, seq, slot));
    }

    pub fn remove(&mut self, definition: u32, tags: &Tags, order: i64, seq: u64, slot: Slot) {
        let groups = &mut self.entries[definition as usize].groups;
        if let Some(at) = groups.iter().position(|group| group.tags == *tags) {
            groups[at].ready.remove(&(order, seq, slot));
            if groups[at].ready.is_empty() && groups.len() > 16 {
                groups.swap_remove(at);
            }
        }
    }

    /// How much is ready, by definition and tags; `age` says of an instance how long it has been.
    pub fn backlog(&self, age: impl Fn(Slot) -> i64) -> Vec<Backlog> {
        self.entries
            .iter()
            .flat_map(|entry| {
                let age = &age;
                entry
                    .groups
                    .iter()
                    .filter_map(|group| group.ready.first().map(|first| (group, first)))
                    .map(|(group, (.., next))| Backlog {
                        hash: entry.hash,
                        workflow: Arc::clone(&entry.workflow),
                        tags: Arc::clone(&group.tags),
                        ready: group.ready.len(),
                        age_us: age(*next),
                    })
            })
            .collect()
    }

    /// Takes out the best ready instance that the claimant can do.
    pub fn pop(&mut self, claimant: &Claimant, hashes: &[Hash]) -> Option<Slot> {
        let mut best: Option<(Key, u32, usize)> = None;
        for hash in hashes {
            let Some(&definition) = self.by_hash.get(hash) else {
                continue;
            };
            for (at, group) in self.entries[definition as usize].groups.iter().enumerate() {
                if let Some(first) = group.ready.first()
                    && best.is_none_or(|(key, ..)| *first < key)
                    && covers(claimant.tags.as_ref(), &group.tags)
                {
                    best = Some((*first, definition, at));
                }
            }
        }
        let (key, definition, at) = best?;
        self.entries[definition as usize].groups[at]
            .ready
            .remove(&key);
        Some(key.2)
    }
}
