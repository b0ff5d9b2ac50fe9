//! A small store of short texts that were keys of dicts lately.
//!
//! The dicts of a workflow have the same few keys again and again. A text that is found here need
//! not be built, and its hash is already known. It promises that a hit is equal to the bytes asked
//! for, and a size that does not grow; it refuses to know anything about dicts.

use std::cell::Cell;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// Longest key that is kept, in bytes.
pub(super) const MAX_KEY_BYTES: usize = 32;
/// Places in the store, a power of two.
const PLACES: usize = 512;

struct Kept {
    len: u8,
    bytes: [u8; MAX_KEY_BYTES],
    text: Py<PyString>,
}

type Places = Vec<Option<Kept>>;

thread_local! {
    /// Taken out while a decoder works and put back afterwards: a decoder that is entered from
    /// inside another one finds nothing here and does without.
    static PLACES_OF_THREAD: Cell<Option<Places>> = const { Cell::new(None) };
}

/// The store of this thread, on loan to one decoder.
pub(super) struct Keys {
    places: Option<Places>,
}

impl Keys {
    /// A loan that fetches the store when the first key is asked for.
    pub(super) fn new() -> Self {
        Keys { places: None }
    }

    /// The text that `bytes` spell; an error when they are not UTF-8. `bytes` are at most
    /// [`MAX_KEY_BYTES`] long, longer ones are built without being kept.
    #[inline]
    pub(super) fn text<'py>(
        &mut self,
        py: Python<'py>,
        bytes: &[u8],
    ) -> PyResult<Bound<'py, PyString>> {
        if bytes.len() > MAX_KEY_BYTES {
            return PyString::from_bytes(py, bytes);
        }
        let places = self.places.get_or_insert_with(borrow_places);
        let place = &mut places[place_of(bytes)];
        if let Some(kept) = place
            && &kept.bytes[..usize::from(kept.len)] == bytes
        {
            return Ok(kept.text.bind(py).clone());
        }
        let text = PyString::from_bytes(py, bytes)?;
        let mut kept = Kept {
            len: bytes.len() as u8,
            bytes: [0; MAX_KEY_BYTES],
            text: text.clone().unbind(),
        };
        kept.bytes[..bytes.len()].copy_from_slice(bytes);
        *place = Some(kept);
        Ok(text)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            // A thread that is ending has no place for it any more: the texts go with it.
            let _ = PLACES_OF_THREAD.try_with(|cell| cell.set(Some(places)));
        }
    }
}

#[cold]
fn new_places() -> Places {
    std::iter::repeat_with(|| None).take(PLACES).collect()
}

fn borrow_places() -> Places {
    PLACES_OF_THREAD
        .try_with(Cell::take)
        .ok()
        .flatten()
        .unwrap_or_else(new_places)
}

/// FNV-1a over the length and the bytes, folded to a place. It need not resist an attacker: the
/// worst that he can do is to make the store useless.
#[inline]
fn place_of(bytes: &[u8]) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    for &byte in chunks.remainder() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (hash ^ (hash >> 29)) as usize % PLACES
}
