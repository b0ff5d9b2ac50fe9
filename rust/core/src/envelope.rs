//! Bytes with a header: payloads, the composites built from them, and error records.
//!
//! Everything that reaches a store starts with twelve bytes: `SYRS`, format version, kind, codec,
//! flags, and a CRC-32 (little endian) over the bytes 4..8 and the body. A *payload* is one value in
//! one codec. A *composite* (named results, list, branch) carries whole payloads, so it is made by
//! copying bytes, whatever their codecs are; and because its kind stands in the header, no value can
//! imitate one.
//!
//! The interpreter looks into a payload for three questions only: is this a `LoopResult`, is this a
//! list, is this a text. Those peeks walk MessagePack without building anything. Decoding values for
//! users is the binding layer's work, not done here.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Shared immutable bytes.
pub type Bytes = Arc<[u8]>;

/// First four bytes of everything stored.
pub const MAGIC: [u8; 4] = *b"SYRS";
/// The format version written here.
pub const VERSION: u8 = 1;
/// Length of the header.
pub const HEADER: usize = 12;

/// Kinds: what the body is. Frozen for ever.
pub mod kind {
    /// One value in one codec.
    pub const VALUE: u8 = 1;
    /// Names and payloads: what a join receives.
    pub const NAMED: u8 = 2;
    /// Payloads in order: what a map passes on.
    pub const LIST: u8 = 3;
    /// A key and a payload: what a route passes on.
    pub const BRANCH: u8 = 4;
    /// An error record.
    pub const ERROR: u8 = 5;
    /// The position of one strand.
    pub const CELL: u8 = 6;
    /// A definition tree.
    pub const DEFINITION: u8 = 7;
    /// A whole instance.
    pub const SNAPSHOT: u8 = 8;
    /// A definition tree whose instances are the items of a spread map.
    pub const ITEMS: u8 = 9;
}

/// Codec ids: how the body of a value is written. Frozen for ever.
pub mod codec {
    /// No codec of its own (composites, records).
    pub const NONE: u8 = 0;
    /// MessagePack with the extension types of [`super::ext`].
    pub const MSGPACK: u8 = 1;
    /// The same as JSON text. Only at rest: whoever takes bytes in from a store turns them around.
    pub const JSON: u8 = 2;
    /// MessagePack in which some values are pickles.
    pub const PICKLED: u8 = 3;
    /// No value, but the sentence that says why one could not be read when it was taken in.
    pub const UNREADABLE: u8 = 255;

    /// Whether the body is MessagePack.
    #[must_use]
    pub fn is_msgpack(codec: u8) -> bool {
        matches!(codec, MSGPACK | PICKLED)
    }
}

/// Flags: what was done to a body before it went to a store. Frozen for ever. Everything here but
/// [`open_stored`] refuses bytes that have any.
pub mod flag {
    /// The body is compressed.
    pub const COMPRESSED: u8 = 1;
    /// The body is encrypted.
    pub const ENCRYPTED: u8 = 2;
    /// The body is whatever a step of the user's own made of a whole payload.
    pub const OWN: u8 = 4;
}

/// MessagePack extension codes that both the interpreter and the value codec use. Frozen for ever.
pub mod ext {
    /// A tuple: an array.
    pub const TUPLE: u8 = 2;
    /// A `LoopResult`: the array `[is_done, value]`.
    pub const LOOP_RESULT: u8 = 16;
    /// An `EventTimeout`: the array `[event name]`.
    pub const EVENT_TIMEOUT: u8 = 17;
    /// A `MapError`: the array `[index, error type, message, path]`.
    pub const MAP_ERROR: u8 = 18;
}

/// The most causes of an error that are kept.
pub const MAX_CAUSES: usize = 64;

/// Appends a header with an open checksum; returns where it begins, for [`seal`].
pub fn begin(out: &mut Vec<u8>, kind: u8, codec: u8) -> usize {
    begin_flagged(out, kind, codec, 0)
}

/// The same for a body to which something was done, see [`flag`].
pub fn begin_flagged(out: &mut Vec<u8>, kind: u8, codec: u8, flags: u8) -> usize {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, kind, codec, flags, 0, 0, 0, 0]);
    start
}

/// Fills in the checksum of what was begun at `start` and written since.
pub fn seal(out: &mut [u8], start: usize) {
    let sum = checksum(&out[start..]).to_le_bytes();
    out[start + 8..start + HEADER].copy_from_slice(&sum);
}

fn checksum(sealed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sealed[4..8]);
    hasher.update(&sealed[HEADER..]);
    hasher.finalize()
}

/// Wraps a finished body.
#[must_use]
pub fn sealed(kind: u8, codec: u8, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER + body.len());
    let start = begin(&mut out, kind, codec);
    out.extend_from_slice(body);
    seal(&mut out, start);
    out.into()
}

/// An opened envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    /// What the body is, see [`kind`].
    pub kind: u8,
    /// How it is written, see [`codec`].
    pub codec: u8,
    /// The bytes behind the header.
    pub body: &'a [u8],
}

/// Checks magic, version and checksum.
///
/// # Errors
/// [`Error::Format`] saying which of them is wrong; [`Error::Newer`] for what a newer version wrote.
pub fn open(bytes: &[u8]) -> Result<View<'_>> {
    let (view, flags) = open_stored(bytes)?;
    if flags != 0 {
        return Err(unknown_flags(flags));
    }
    Ok(view)
}

fn unknown_flags(flags: u8) -> Error {
    Error::Newer(format!(
        "the flags {flags:#04x} are unknown to this program here; update sayiir"
    ))
}

/// The same for bytes to which something was done before they went to a store: with the flags that
/// say what.
///
/// # Errors
/// As [`open`]; [`Error::Newer`] also for flags that are none of [`flag`].
pub fn open_stored(bytes: &[u8]) -> Result<(View<'_>, u8)> {
    if bytes.len() < HEADER || bytes[..4] != MAGIC {
        return Err(Error::format(
            "these bytes are not sayiir's: the mark SYRS is missing",
        ));
    }
    // The header is the same in every version, so damage is told from a newer program's work.
    let found = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if checksum(bytes) != found {
        return Err(Error::format(
            "the bytes are damaged: their checksum does not match",
        ));
    }
    if bytes[4] > VERSION {
        return Err(Error::Newer(format!(
            "format version {} is newer than this program's {VERSION}; update sayiir",
            bytes[4]
        )));
    }
    if bytes[4] != VERSION {
        return Err(Error::format(format!(
            "format version {} is none that this program reads ({VERSION})",
            bytes[4]
        )));
    }
    let flags = bytes[7];
    if flags & !(flag::COMPRESSED | flag::ENCRYPTED | flag::OWN) != 0 {
        return Err(unknown_flags(flags));
    }
    Ok((open_own(bytes)?, flags))
}

/// Opens bytes that never left this process's memory, without the checksum.
///
/// # Errors
/// [`Error::Format`] when there is no header.
pub fn open_own(bytes: &[u8]) -> Result<View<'_>> {
    if bytes.len() < HEADER {
        return Err(cut());
    }
    Ok(View {
        kind: bytes[5],
        codec: bytes[6],
        body: &bytes[HEADER..],
    })
}

/// Opens and insists on a kind.
pub fn open_as<'a>(bytes: &'a [u8], kind: u8, what: &str) -> Result<&'a [u8]> {
    let view = open(bytes)?;
    if view.kind == kind {
        Ok(view.body)
    } else {
        Err(Error::format(format!(
            "expected {what}, found an envelope of kind {}",
            view.kind
        )))
    }
}

// Variable-length integers and length-prefixed bytes: seven bits a byte, least significant first.

/// Appends an unsigned integer.
pub fn put_uint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a signed integer (zigzag).
pub fn put_int(out: &mut Vec<u8>, n: i64) {
    put_uint(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Appends bytes with their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the `put_…` functions wrote; never reads past the end, never allocates on trust.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The bytes not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Position from the start.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(cut)?;
        self.at += 1;
        Ok(byte)
    }

    /// An unsigned integer.
    pub fn uint(&mut self) -> Result<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(Error::format("a number is too long"))
    }

    /// An unsigned integer that fits 32 bits.
    pub fn uint32(&mut self) -> Result<u32> {
        u32::try_from(self.uint()?).map_err(|_| Error::format("a number is out of range"))
    }

    /// A count of things that take at least one byte each.
    pub fn count(&mut self) -> Result<usize> {
        self.count_of(1)
    }

    /// A count of things that take at least so many bytes each.
    pub fn count_of(&mut self, least: usize) -> Result<usize> {
        let n = self.uint()?;
        if n > (self.left() / least) as u64 {
            return Err(Error::format(
                "a count is larger than the bytes that follow",
            ));
        }
        Ok(n as usize)
    }

    /// A signed integer.
    pub fn int(&mut self) -> Result<i64> {
        let n = self.uint()?;
        Ok(((n >> 1) as i64) ^ -((n & 1) as i64))
    }

    /// Exactly `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.left() {
            return Err(cut());
        }
        let out = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(out)
    }

    /// Length-prefixed bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let n = self.count()?;
        self.take(n)
    }

    /// Length-prefixed UTF-8.
    pub fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::format("a text is not UTF-8"))
    }

    /// Insists that nothing is left.
    pub fn end(&self) -> Result<()> {
        if self.left() == 0 {
            Ok(())
        } else {
            Err(Error::format("there are bytes left over"))
        }
    }
}

fn cut() -> Error {
    Error::format("the bytes end too early")
}

// Composites.

/// `{name: payload}`, what a join receives.
#[must_use]
pub fn named<'a>(items: impl ExactSizeIterator<Item = (&'a str, Bytes)>) -> Bytes {
    let mut out = Vec::new();
    let start = begin(&mut out, kind::NAMED, codec::NONE);
    put_uint(&mut out, items.len() as u64);
    for (name, payload) in items {
        put_bytes(&mut out, name.as_bytes());
        put_bytes(&mut out, &payload);
    }
    seal(&mut out, start);
    out.into()
}

/// `[payload, …]`, what a map passes on.
#[must_use]
pub fn list(items: &[Bytes]) -> Bytes {
    let size: usize = items.iter().map(|item| item.len() + 3).sum();
    let mut out = Vec::with_capacity(HEADER + 5 + size);
    let start = begin(&mut out, kind::LIST, codec::NONE);
    put_uint(&mut out, items.len() as u64);
    for payload in items {
        put_bytes(&mut out, payload);
    }
    seal(&mut out, start);
    out.into()
}

/// `{"branch": key, "result": payload}`, what a route passes on.
#[must_use]
pub fn branch(key: &str, result: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER + key.len() + result.len() + 8);
    let start = begin(&mut out, kind::BRANCH, codec::NONE);
    put_bytes(&mut out, key.as_bytes());
    put_bytes(&mut out, result);
    seal(&mut out, start);
    out.into()
}

/// The pairs of a [`named`] body.
pub fn named_items(body: &[u8]) -> Result<Vec<(&str, &[u8])>> {
    let mut reader = Reader::new(body);
    // A name of no bytes, and an empty payload, each behind its length.
    let count = reader.count_of(2 + HEADER)?;
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        out.push((reader.text()?, reader.bytes()?));
    }
    reader.end()?;
    Ok(out)
}

/// The key and the payload of a [`branch`] body.
pub fn branch_parts(body: &[u8]) -> Result<(&str, &[u8])> {
    let mut reader = Reader::new(body);
    let parts = (reader.text()?, reader.bytes()?);
    reader.end()?;
    Ok(parts)
}

/// The payloads of a [`list`] body, as ranges of it.
pub fn list_items(body: &[u8]) -> Result<Vec<Range<usize>>> {
    let mut reader = Reader::new(body);
    let count = reader.count_of(1 + HEADER)?;
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        let len = reader.bytes()?.len();
        out.push(reader.position() - len..reader.position());
    }
    reader.end()?;
    Ok(out)
}

// Values the engine itself makes.

fn put_str(out: &mut Vec<u8>, text: &str) {
    let n = text.len();
    match n {
        0..=31 => out.push(0xa0 | n as u8),
        32..=255 => out.extend_from_slice(&[0xd9, n as u8]),
        256..=65_535 => {
            out.push(0xda);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdb);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

fn ext_value(code: u8, inner: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER + 6 + inner.len());
    let start = begin(&mut out, kind::VALUE, codec::MSGPACK);
    match u8::try_from(inner.len()) {
        Ok(n) => out.extend_from_slice(&[0xc7, n, code]),
        Err(_) => {
            out.push(0xc9);
            out.extend_from_slice(&(inner.len() as u32).to_be_bytes());
            out.push(code);
        }
    }
    out.extend_from_slice(inner);
    seal(&mut out, start);
    out.into()
}

/// The payload a wait passes on when its time is over and the flow goes on.
#[must_use]
pub fn event_timeout(event: &str) -> Bytes {
    let mut inner = vec![0x91];
    put_str(&mut inner, event);
    ext_value(ext::EVENT_TIMEOUT, &inner)
}

/// The payload that stands for a failed map item.
#[must_use]
pub fn map_error(index: u32, record: &ErrorRecord, path: &str) -> Bytes {
    let mut inner = vec![0x94, 0xce];
    inner.extend_from_slice(&index.to_be_bytes());
    put_str(&mut inner, &record.error_type);
    put_str(&mut inner, &record.message);
    put_str(&mut inner, path);
    ext_value(ext::MAP_ERROR, &inner)
}

// Peeks.

/// Opens what a question is asked about; that it could not be read is the answer to any.
fn peek(payload: &[u8]) -> Result<View<'_>> {
    let view = open(payload)?;
    if view.kind == kind::VALUE && view.codec == codec::UNREADABLE {
        return Err(Error::format(String::from_utf8_lossy(view.body)));
    }
    Ok(view)
}

/// Length of the MessagePack value at `at`; iterative, bounded by the input.
fn skip(bytes: &[u8], at: usize) -> Result<usize> {
    let mut at = at;
    let mut open = 1u64;
    while open > 0 {
        open -= 1;
        let head = *bytes.get(at).ok_or_else(cut)?;
        let sized = |width: usize| -> Result<u64> {
            let field = bytes.get(at + 1..at + 1 + width).ok_or_else(cut)?;
            Ok(field
                .iter()
                .fold(0u64, |n, byte| (n << 8) | u64::from(*byte)))
        };
        let (size, nested): (u64, u64) = match head {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (1, 0),
            0x80..=0x8f => (1, 2 * u64::from(head & 0x0f)),
            0x90..=0x9f => (1, u64::from(head & 0x0f)),
            0xa0..=0xbf => (1 + u64::from(head & 0x1f), 0),
            0xc4 | 0xd9 => (2 + sized(1)?, 0),
            0xc5 | 0xda => (3 + sized(2)?, 0),
            0xc6 | 0xdb => (5 + sized(4)?, 0),
            0xc7 => (3 + sized(1)?, 0),
            0xc8 => (4 + sized(2)?, 0),
            0xc9 => (6 + sized(4)?, 0),
            0xca | 0xce | 0xd2 => (5, 0),
            0xcb | 0xcf | 0xd3 => (9, 0),
            0xcc | 0xd0 => (2, 0),
            0xcd | 0xd1 => (3, 0),
            0xd4 => (3, 0),
            0xd5 => (4, 0),
            0xd6 => (6, 0),
            0xd7 => (10, 0),
            0xd8 => (18, 0),
            0xdc => (3, sized(2)?),
            0xdd => (5, sized(4)?),
            0xde => (3, 2 * sized(2)?),
            0xdf => (5, 2 * sized(4)?),
            0xc1 => return Err(Error::format("a value has a reserved code")),
        };
        if size > (bytes.len() - at) as u64 {
            return Err(cut());
        }
        at += size as usize;
        open += nested;
        if open > (bytes.len() - at) as u64 {
            return Err(cut());
        }
    }
    Ok(at)
}

/// The code and the inner bytes of an extension value that fills `body`.
fn as_ext(body: &[u8]) -> Option<(u8, Range<usize>)> {
    let be = |range: Range<usize>| -> Option<usize> {
        Some(
            body.get(range)?
                .iter()
                .fold(0usize, |n, byte| (n << 8) | usize::from(*byte)),
        )
    };
    let (len, head) = match *body.first()? {
        0xd4 => (1, 2),
        0xd5 => (2, 2),
        0xd6 => (4, 2),
        0xd7 => (8, 2),
        0xd8 => (16, 2),
        0xc7 => (be(1..2)?, 3),
        0xc8 => (be(1..3)?, 4),
        0xc9 => (be(1..5)?, 6),
        _ => return None,
    };
    let code = *body.get(head - 1)?;
    (head + len == body.len()).then_some((code, head..body.len()))
}

/// Count and first position of an array that begins at the start of `body`.
fn array_head(body: &[u8]) -> Option<(usize, usize)> {
    let be = |range: Range<usize>| -> Option<usize> {
        Some(
            body.get(range)?
                .iter()
                .fold(0usize, |n, byte| (n << 8) | usize::from(*byte)),
        )
    };
    match *body.first()? {
        head @ 0x90..=0x9f => Some((usize::from(head & 0x0f), 1)),
        0xdc => Some((be(1..3)?, 3)),
        0xdd => Some((be(1..5)?, 5)),
        _ => None,
    }
}

/// A list that a map runs over: the payload and where its items are.
#[derive(Debug, Clone)]
pub struct Items {
    source: Bytes,
    /// Where each begins: with its length if it is a payload, with itself if it is a bare value.
    at: Vec<u32>,
    /// Where the last one ends.
    end: usize,
    /// Items are bare values in this codec, not whole payloads.
    bare: Option<u8>,
}

impl Items {
    /// Finds the items of a list or tuple value, or of a map's output; `None` for anything else.
    pub fn of(source: &Bytes) -> Result<Option<Self>> {
        let view = peek(source)?;
        if view.kind == kind::LIST {
            let mut reader = Reader::new(view.body);
            let count = reader.count_of(1 + HEADER)?;
            let mut at = Vec::with_capacity(count);
            for _ in 0..count {
                at.push(position(HEADER + reader.position())?);
                reader.bytes()?;
            }
            reader.end()?;
            return Ok(Some(Self {
                source: source.clone(),
                at,
                end: source.len(),
                bare: None,
            }));
        }
        if view.kind != kind::VALUE || !codec::is_msgpack(view.codec) {
            return Ok(None);
        }
        let inner = match as_ext(view.body) {
            Some((ext::TUPLE, inner)) => inner,
            Some(_) => return Ok(None),
            None => 0..view.body.len(),
        };
        let array = &view.body[inner.clone()];
        let Some((count, mut next)) = array_head(array) else {
            return Ok(None);
        };
        let before = HEADER + inner.start;
        let mut at = Vec::with_capacity(count.min(array.len()));
        for _ in 0..count {
            at.push(position(before + next)?);
            next = skip(array, next)?;
        }
        if next != array.len() {
            return Err(Error::format("a list has bytes left over"));
        }
        Ok(Some(Self {
            source: source.clone(),
            at,
            end: before + next,
            bare: Some(view.codec),
        }))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The payload of one item.
    pub fn get(&self, index: usize) -> Result<Bytes> {
        let place = |index: usize| self.at.get(index).map(|at| *at as usize);
        let start =
            place(index).ok_or_else(|| Error::missing(format!("item {index} is not there")))?;
        let end = place(index + 1).unwrap_or(self.end);
        let bytes = &self.source[start..end];
        Ok(match self.bare {
            Some(codec) => sealed(kind::VALUE, codec, bytes),
            None => Reader::new(bytes).bytes()?.into(),
        })
    }
}

fn position(at: usize) -> Result<u32> {
    u32::try_from(at).map_err(|_| Error::format("a list is larger than 4 GiB"))
}

/// If the payload is a `LoopResult`: whether it is done, and the payload of its value.
pub fn loop_result(payload: &[u8]) -> Result<Option<(bool, Bytes)>> {
    let view = peek(payload)?;
    if view.kind != kind::VALUE || !codec::is_msgpack(view.codec) {
        return Ok(None);
    }
    let Some((ext::LOOP_RESULT, inner)) = as_ext(view.body) else {
        return Ok(None);
    };
    match &view.body[inner] {
        [0x92, 0xc2, value @ ..] => Ok(Some((false, sealed(kind::VALUE, view.codec, value)))),
        [0x92, 0xc3, value @ ..] => Ok(Some((true, sealed(kind::VALUE, view.codec, value)))),
        _ => Err(Error::format("a LoopResult is damaged")),
    }
}

/// If the payload is a text: that text.
pub fn as_text(payload: &[u8]) -> Result<Option<&str>> {
    let view = peek(payload)?;
    if view.kind != kind::VALUE || !codec::is_msgpack(view.codec) {
        return Ok(None);
    }
    let body = view.body;
    let start = match body.first() {
        Some(0xa0..=0xbf) => 1,
        Some(0xd9) => 2,
        Some(0xda) => 3,
        Some(0xdb) => 5,
        _ => return Ok(None),
    };
    if skip(body, 0)? != body.len() {
        return Err(Error::format("a text has bytes left over"));
    }
    std::str::from_utf8(&body[start..])
        .map(Some)
        .map_err(|_| Error::format("a text is not UTF-8"))
}

/// A word for what a payload holds, for messages ("route key is a list, not a str").
#[must_use]
pub fn describe(payload: &[u8]) -> &'static str {
    match open(payload) {
        Ok(View {
            kind: kind::VALUE,
            codec: codec::MSGPACK | codec::PICKLED,
            body,
        }) => match body.first() {
            Some(0xc0) => "None",
            Some(0xc2 | 0xc3) => "a bool",
            Some(0x00..=0x7f | 0xe0..=0xff | 0xcc..=0xcf | 0xd0..=0xd3) => "an int",
            Some(0xca | 0xcb) => "a float",
            Some(0xa0..=0xbf | 0xd9..=0xdb) => "a str",
            Some(0xc4..=0xc6) => "bytes",
            Some(0x90..=0x9f | 0xdc | 0xdd) => "a list",
            Some(0x80..=0x8f | 0xde | 0xdf) => "a dict",
            _ => match as_ext(body) {
                Some((ext::TUPLE, _)) => "a tuple",
                Some((ext::LOOP_RESULT, _)) => "a LoopResult",
                _ => "another type",
            },
        },
        Ok(View {
            kind: kind::NAMED | kind::BRANCH,
            ..
        }) => "a dict",
        Ok(View {
            kind: kind::LIST, ..
        }) => "a list",
        _ => "something undecodable",
    }
}

/// What went wrong in a task, as data: never pickled, bounded, readable anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorRecord {
    /// Name of the exception's type.
    pub error_type: String,
    /// Its text.
    pub message: String,
    /// The formatted traceback; empty for errors of the engine itself.
    pub traceback: String,
    /// The task that failed.
    pub task: String,
    /// The path of the step.
    pub path: String,
    /// Whether the policy would have allowed another attempt.
    pub retryable: bool,
    /// Types and texts of the causes, nearest first.
    pub causes: Vec<(String, String)>,
}

impl ErrorRecord {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + self.message.len() + self.traceback.len());
        let start = begin(&mut out, kind::ERROR, codec::NONE);
        for text in [
            &self.error_type,
            &self.message,
            &self.traceback,
            &self.task,
            &self.path,
        ] {
            put_bytes(&mut out, text.as_bytes());
        }
        out.push(u8::from(self.retryable));
        put_uint(&mut out, self.causes.len() as u64);
        for (error_type, message) in &self.causes {
            put_bytes(&mut out, error_type.as_bytes());
            put_bytes(&mut out, message.as_bytes());
        }
        seal(&mut out, start);
        out.into()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(open_as(bytes, kind::ERROR, "an error record")?);
        let mut text = || reader.text().map(str::to_owned);
        let (error_type, message, traceback, task, path) =
            (text()?, text()?, text()?, text()?, text()?);
        let retryable = reader.byte()? != 0;
        let count = reader.count()?;
        if count > MAX_CAUSES {
            return Err(Error::format(format!("an error has {count} causes")));
        }
        let mut causes = Vec::with_capacity(count);
        for _ in 0..count {
            causes.push((reader.text()?.to_owned(), reader.text()?.to_owned()));
        }
        reader.end()?;
        Ok(Self {
            error_type,
            message,
            traceback,
            task,
            path,
            retryable,
            causes,
        })
    }
}
