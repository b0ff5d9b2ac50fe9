//! The buffered events of one instance: first in, first out per name, each key once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use sayiir_core::Bytes;
use sayiir_core::event::Event;
use sayiir_core::snapshot::KeptEvent;

#[derive(Debug)]
struct Buffered {
    came_us: i64,
    key: Option<Arc<str>>,
    event: Event,
}

#[derive(Debug, Default)]
pub struct EventBox {
    next: u64,
    queue: VecDeque<Buffered>,
    keys: HashSet<(Arc<str>, Arc<str>)>,
}

impl EventBox {
    /// Buffers an event; `false` when its key was seen before.
    pub fn push(&mut self, name: &str, payload: Bytes, key: Option<&str>, now_us: i64) -> bool {
        let name: Arc<str> = name.into();
        let key: Option<Arc<str>> = key.map(Into::into);
        if let Some(key) = &key
            && !self.keys.insert((Arc::clone(&name), Arc::clone(key)))
        {
            return false;
        }
        let seq = self.next;
        self.next += 1;
        self.queue.push_back(Buffered {
            came_us: now_us,
            key,
            event: Event { seq, name, payload },
        });
        true
    }

    /// Buffers an event that was buffered elsewhere, or its key alone; it knows better about the key
    /// than whatever has it here.
    pub fn adopt(&mut self, event: &KeptEvent) {
        if let Some(key) = &event.key {
            self.queue
                .retain(|known| known.event.name != event.name || known.key.as_ref() != Some(key));
            self.keys
                .remove(&(Arc::clone(&event.name), Arc::clone(key)));
        }
        match (&event.payload, &event.key) {
            (Some(payload), key) => {
                let payload = Bytes::clone(payload);
                self.push(&event.name, payload, key.as_deref(), event.came_us);
            }
            (None, Some(key)) => {
                self.keys.insert((Arc::clone(&event.name), Arc::clone(key)));
            }
            (None, None) => {}
        }
    }

    /// What is buffered, in order, and the keys that are known of what is not.
    pub fn kept(&self) -> Vec<KeptEvent> {
        let buffered = self.queue.iter().map(|buffered| KeptEvent {
            name: Arc::clone(&buffered.event.name),
            key: buffered.key.clone(),
            came_us: buffered.came_us,
            payload: Some(Bytes::clone(&buffered.event.payload)),
        });
        let waiting: HashSet<_> = self
            .queue
            .iter()
            .filter_map(|one| Some((&one.event.name, one.key.as_ref()?)))
            .collect();
        let mut consumed: Vec<_> = self
            .keys
            .iter()
            .filter(|(name, key)| !waiting.contains(&(name, key)))
            .collect();
        consumed.sort_unstable();
        let consumed = consumed.into_iter().map(|(name, key)| KeptEvent {
            name: Arc::clone(name),
            key: Some(Arc::clone(key)),
            came_us: 0,
            payload: None,
        });
        consumed.chain(buffered).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.queue
            .iter()
            .any(|buffered| *buffered.event.name == *name)
    }

    /// The oldest events for these names, as many per name as it is asked for.
    pub fn oldest(&self, names: &[Arc<str>]) -> Vec<Event> {
        let mut wanted: Vec<&Arc<str>> = names.iter().collect();
        let mut out = Vec::new();
        for Buffered { event, .. } in &self.queue {
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
        self.queue
            .retain(|buffered| !seqs.contains(&buffered.event.seq));
    }

    /// Drops what came at this time or before as if it had never come, keys included.
    pub fn forget(&mut self, at_us: i64) {
        while self
            .queue
            .front()
            .is_some_and(|oldest| oldest.came_us <= at_us)
        {
            if let Some(Buffered {
                key: Some(key),
                event,
                ..
            }) = self.queue.pop_front()
            {
                self.keys.remove(&(event.name, key));
            }
        }
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

    #[test]
    fn what_is_forgotten_takes_its_key_along() {
        let mut events = EventBox::default();
        assert!(events.push("a", payload(1), Some("k"), 1));
        assert!(events.push("a", payload(2), None, 2));
        events.forget(1);
        assert!(events.push("a", payload(3), Some("k"), 3));
        assert!(!events.push("a", payload(4), Some("k"), 4));
    }
}
