//! The buffered events of one instance: first in, first out per name, each key once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use sayiir_core::Bytes;
use sayiir_core::event::Event;

#[derive(Debug, Default)]
pub struct EventBox {
    next: u64,
    /// Each with the time it came, µs.
    queue: VecDeque<(i64, Event)>,
    keys: HashSet<(Arc<str>, Arc<str>)>,
}

impl EventBox {
    /// Buffers an event; `false` when its key was seen before.
    pub fn push(&mut self, name: &str, payload: Bytes, key: Option<&str>, now_us: i64) -> bool {
        let name: Arc<str> = name.into();
        if let Some(key) = key
            && !self.keys.insert((Arc::clone(&name), key.into()))
        {
            return false;
        }
        let seq = self.next;
        self.queue.push_back((now_us, Event { seq, name, payload }));
        self.next += 1;
        true
    }

    pub fn has(&self, name: &str) -> bool {
        self.queue.iter().any(|(_, event)| *event.name == *name)
    }

    /// The oldest events for these names, as many per name as it is asked for.
    pub fn oldest(&self, names: &[Arc<str>]) -> Vec<Event> {
        let mut wanted: Vec<&Arc<str>> = names.iter().collect();
        let mut out = Vec::new();
        for (_, event) in &self.queue {
            if wanted.is_empty() {
                break;
            }
            if let Some(at) = wanted.iter().position(|name| **name == event.name) {
                wanted.swap_remove(at);
                out.push(event.clone());
            }
        }
        out
    }

    pub fn remove(&mut self, seqs: &[u64]) {
        self.queue.retain(|(_, event)| !seqs.contains(&event.seq));
    }

    /// Drops what came at this time or before.
    pub fn forget(&mut self, at_us: i64) {
        self.queue.retain(|(came, _)| *came > at_us);
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(byte: u8) -> Bytes {
        Arc::from([byte])
    }

    #[test]
    fn fifo_per_name_and_each_key_once() {
        let mut events = EventBox::default();
        assert!(events.push("a", payload(1), Some("k"), 0));
        assert!(!events.push("a", payload(2), Some("k"), 0));
        assert!(events.push("b", payload(3), Some("k"), 0));
        assert!(events.push("a", payload(4), None, 0));
        let a: Arc<str> = "a".into();
        let seen: Vec<u8> = events
            .oldest(&[a.clone(), a.clone(), a.clone()])
            .iter()
            .map(|e| e.payload[0])
            .collect();
        assert_eq!(seen, [1, 4]);
        let first = events.oldest(std::slice::from_ref(&a))[0].seq;
        events.remove(&[first]);
        assert_eq!(events.oldest(&[a])[0].payload[0], 4);
        assert!(
            !events.push("a", payload(5), Some("k"), 0),
            "a consumed event's key stays known"
        );
    }
}
