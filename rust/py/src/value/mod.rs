//! The value codec: one Python value in, one run of bytes out, and back.
//!
//! What a task takes and returns crosses every step through here, in memory as on disk. The object
//! is walked where it stands and written as MessagePack; there is no tree in between.
//!
//! **Promises.** A value of the types below comes back equal and of exactly the same type, or it is
//! refused before anything is written, with the place and the type named. Nothing is guessed: only
//! these exact types are carried (a subclass is refused), and what has no MessagePack form of its
//! own is an *extension*, so no value can imitate another. A value of any other type is written as
//! its *plain form*, if whoever is registered for that knows one (`sayiir._plain`), and comes back
//! as that. [`decode`] takes any bytes whatever: it never panics, never recurses past [`MAX_DEPTH`],
//! never believes a length before the bytes are there, and answers damage with the offset at which
//! it was found.
//!
//! **Refuses to know** instances, steps, tasks, files, checksums, annotations, dataclasses. The
//! envelope around a payload is someone else's; so is turning plain data into a model.
//!
//! # The format
//!
//! One value is one MessagePack item. All numbers are big-endian.
//!
//! | Python | bytes |
//! |---|---|
//! | `None`, `bool` | nil, true, false |
//! | `int` from −2⁶³ to 2⁶⁴−1 | the shortest integer form |
//! | `float` | float 64, the bits unchanged (NaN payload and −0.0 included) |
//! | `str` | str, UTF-8; a lone surrogate is refused |
//! | `bytes` | bin |
//! | `list` | array |
//! | `dict` | map, in the order of the dict; a key is any value that can be hashed |
//! | everything else | an extension of the table below |
//!
//! An extension is written as fixext 1/2/4/8/16 where its length is one of these, as ext 8 up to
//! 255 bytes, as ext 32 above. A reader takes every MessagePack form of an item (ext 16, float 32
//! and longer integers too), but nothing after the value, no map with two equal keys, no set with
//! two equal members, and no extension whose body is not exactly what this table says.
//!
//! | code | value | body |
//! |---|---|---|
//! | 1 | `int` outside the range above | two's complement, big-endian, as short as it can be (so 9 bytes or more) |
//! | 2 | `tuple` | an array of the items |
//! | 3 | `set` | an array of the members, in no particular order |
//! | 4 | `frozenset` | an array of the members, in no particular order |
//! | 5 | `datetime` | year u16, month u8, day u8, then as `time` |
//! | 6 | `date` | year u16, month u8, day u8 |
//! | 7 | `time` | hour u8, minute u8, second u8, microsecond u24, fold u8 (0 or 1), zone |
//! | 8 | `timedelta` | days i32, seconds u32 (below 86,400), microseconds u32 (below 1,000,000) |
//! | 9 | `Decimal` | the text of `str(value)` with a capital `E`, in ASCII |
//! | 10 | `UUID` | its 16 bytes (`is_safe`, which takes no part in equality, is not kept) |
//! | 16 | `LoopResult` | an array: is it done (bool), the value |
//! | 17 | `EventTimeout` | an array: the name of the event (str) |
//! | 18 | `MapError` | an array: index (int), type of the error, message, path (str each) |
//! | 19 | whatever `pickle` can carry and nothing else here; only where it is asked for | the pickle |
//!
//! *zone* is one byte that says which, then the zone itself up to the end of the body:
//! 0 none · 1 `timezone` with its offset in microseconds, i64 · 2 `timezone` with offset, i64, and
//! name, UTF-8 · 3 `ZoneInfo` with its key, ASCII letters, digits and `+ - _ /`, 1 to 255 of them.
//!
//! Codes are frozen for ever: one is never given a second meaning, a new kind of value takes a new
//! code. 0, 11–15 and 20–127 are free; the negative ones belong to MessagePack and are refused.
//!
//! # Limits
//!
//! Containers nest at most [`MAX_DEPTH`] deep (a list in a list is two), which is also how a value
//! that contains itself is noticed. One value takes at most [`MAX_PAYLOAD_BYTES`] bytes.

mod classes;
mod decode;
mod decode_extension;
mod encode;
mod encode_extension;
mod keys;

use std::fmt;

use pyo3::prelude::*;

pub use classes::{register, register_plain_form};
pub use decode_extension::NO_PICKLES;

/// How deep containers may nest: `[[1]]` is 2 deep. Both directions refuse more. At this depth the
/// walk fits a thread stack of 512 KiB, in an unoptimised build too.
pub const MAX_DEPTH: usize = 200;

/// How many bytes one encoded value may take: 64 MiB.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// The extension codes. The table in the module's documentation says what each body holds.
pub mod code {
    pub const BIG_INT: i8 = 1;
    pub const TUPLE: i8 = 2;
    pub const SET: i8 = 3;
    pub const FROZENSET: i8 = 4;
    pub const DATETIME: i8 = 5;
    pub const DATE: i8 = 6;
    pub const TIME: i8 = 7;
    pub const TIMEDELTA: i8 = 8;
    pub const DECIMAL: i8 = 9;
    pub const UUID: i8 = 10;
    pub const LOOP_RESULT: i8 = 16;
    pub const EVENT_TIMEOUT: i8 = 17;
    pub const MAP_ERROR: i8 = 18;
    pub const PICKLE: i8 = 19;
}

/// Which zone follows a time of day: see *zone* in the module's documentation.
pub mod zone {
    pub const NONE: u8 = 0;
    pub const OFFSET: u8 = 1;
    pub const NAMED_OFFSET: u8 = 2;
    pub const KEY: u8 = 3;

    /// The shape of every key in the zone database. Anything else never reaches `ZoneInfo`, which
    /// looks a key up as a file name and as the name of a package.
    pub fn is_key(key: &str) -> bool {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'_' | b'/');
        (1..=255).contains(&key.len())
            && key.bytes().all(plain)
            && key.split('/').all(|part| !part.is_empty())
    }
}

/// Why a value cannot be carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeFailure {
    /// Where in the value: `$` is the value itself, `$['a'][3]` an item of it, `$.value` a field,
    /// `$<key 2>` the third key of a dict, `$<member>` a member of a set.
    pub path: String,
    /// The full name of the type found there, `collections.OrderedDict` for one.
    pub type_name: String,
    /// What is wrong and what to do about it, as a clause without a full stop.
    pub reason: String,
}

impl fmt::Display for EncodeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (of type {}) cannot be stored: {}",
            self.path, self.type_name, self.reason
        )
    }
}

/// Why bytes are not a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeFailure {
    /// The byte at which reading stopped, counted from 0.
    pub offset: usize,
    /// What was found there, as a clause without a full stop. Never holds a part of the payload.
    pub reason: String,
}

impl fmt::Display for DecodeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the stored value is damaged or foreign at byte {}: {}",
            self.offset, self.reason
        )
    }
}

/// Appends the encoding of `obj` to `out`.
///
/// On failure `out` is as long as it was. Runs with the interpreter attached; the value may change
/// under its feet (another thread, a finaliser), which is noticed and refused.
///
/// ```text
/// encode(&PyList::new(py, [1, 2])?, &mut out)   // out: 92 01 02
/// ```
pub fn encode(obj: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Result<(), EncodeFailure> {
    encode_with(obj, out, false).map(|_| ())
}

/// The same, with a pickle in place of what would be refused, if that is asked for; whether there is
/// any.
pub fn encode_with(
    obj: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    pickles: bool,
) -> Result<bool, EncodeFailure> {
    let start = out.len();
    encode::Encoder::new(obj.py(), out, pickles)
        .run(obj)
        .map_err(|refusal| {
            out.truncate(start);
            refusal.into_failure()
        })
}

/// Reads the one value that `bytes` hold, from the first byte to the last.
///
/// ```text
/// decode(py, &[0x92, 1, 2])                     // [1, 2]
/// decode(py, &[0x92, 1])                        // DecodeFailure { offset: 0, .. }
/// ```
pub fn decode<'py>(py: Python<'py>, bytes: &[u8]) -> Result<Bound<'py, PyAny>, DecodeFailure> {
    decode_with(py, bytes, false)
}

/// The same, where pickles are read if that is asked for.
pub fn decode_with<'py>(
    py: Python<'py>,
    bytes: &[u8],
    pickles: bool,
) -> Result<Bound<'py, PyAny>, DecodeFailure> {
    decode::Decoder::new(py, bytes, pickles)
        .run()
        .map_err(|failure| *failure)
}
