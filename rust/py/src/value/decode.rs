//! The way from bytes to a Python value: the forms that MessagePack has of its own.
//!
//! Promises, for any input: no panic, no recursion past [`MAX_DEPTH`], no memory set aside for a
//! length that is only claimed. Items that are still owed by open containers are counted, and each
//! takes a byte at least, so a claim that the rest of the input cannot keep is refused at once.
//! Beyond the objects themselves a decoder holds one pointer or two per list item. Refuses to know
//! what an extension means; that is in `decode_extension`.

use std::convert::Infallible;

use pyo3::IntoPyObject;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};

use super::keys::Keys;
use super::{DecodeFailure, MAX_DEPTH, MAX_PAYLOAD_BYTES};

/// A failure is boxed so that the success of the hot path stays two words wide.
pub(super) type Outcome<T> = Result<T, Box<DecodeFailure>>;

pub(super) struct Decoder<'a, 'py> {
    pub(super) py: Python<'py>,
    input: &'a [u8],
    /// The next byte to read; never past `end`.
    pub(super) pos: usize,
    /// Where the current body ends: the input, or an extension inside it.
    pub(super) end: usize,
    /// Containers that are open around the current item.
    depth: usize,
    /// Items of arrays that are not finished yet, those of the innermost last.
    pub(super) items: Vec<Bound<'py, PyAny>>,
    /// Items that open containers still wait for, the current one left out.
    pub(super) owed: usize,
    keys: Keys,
    /// Whether a pickle is read, or refused.
    pub(super) pickles: bool,
}

impl<'a, 'py> Decoder<'a, 'py> {
    pub(super) fn new(py: Python<'py>, input: &'a [u8], pickles: bool) -> Self {
        Decoder {
            py,
            input,
            pos: 0,
            end: input.len(),
            depth: 0,
            items: Vec::new(),
            owed: 0,
            keys: Keys::new(),
            pickles,
        }
    }

    pub(super) fn run(mut self) -> Outcome<Bound<'py, PyAny>> {
        if self.input.len() > MAX_PAYLOAD_BYTES {
            return Err(self.failure(
                0,
                format!(
                    "{} bytes are more than the {MAX_PAYLOAD_BYTES} that one value may take",
                    self.input.len()
                ),
            ));
        }
        let value = self.value()?;
        if self.pos != self.end {
            return Err(self.failure(
                self.pos,
                format!(
                    "the value ends here and {} bytes follow it",
                    self.end - self.pos
                ),
            ));
        }
        Ok(value)
    }

    /// Reads one value of any kind.
    pub(super) fn value(&mut self) -> Outcome<Bound<'py, PyAny>> {
        let start = self.pos;
        let marker = self.byte()?;
        match marker {
            0x00..=0x7f => Ok(self.number(marker)),
            0xe0..=0xff => Ok(self.number(marker as i8)),
            0x80..=0x8f => self.map(start, usize::from(marker & 0x0f)),
            0x90..=0x9f => self.list(start, usize::from(marker & 0x0f)),
            0xa0..=0xbf => self.text(start, usize::from(marker & 0x1f)),
            0xd4..=0xd8 => self.extension(start, 1 << (marker - 0xd4)),
            0xc7 | 0xc8 | 0xc9 | 0xdc..=0xdf => {
                let len = self.length(marker)?;
                match marker {
                    0xdc | 0xdd => self.list(start, len),
                    0xde | 0xdf => self.map(start, len),
                    _ => self.extension(start, len),
                }
            }
            _ => self.leaf(start, marker),
        }
    }

    /// Reads a value that holds no other one. It is apart from what does, so that the frames of a
    /// deep value stay small.
    fn leaf(&mut self, start: usize, marker: u8) -> Outcome<Bound<'py, PyAny>> {
        match marker {
            0xc0 => Ok(self.py.None().into_bound(self.py)),
            0xc2 => Ok(PyBool::new(self.py, false).to_owned().into_any()),
            0xc3 => Ok(PyBool::new(self.py, true).to_owned().into_any()),
            0xca => self
                .array()
                .map(|bits| self.float(f64::from(f32::from_be_bytes(bits)))),
            0xcb => self
                .array()
                .map(|bits| self.float(f64::from_be_bytes(bits))),
            0xcc => self
                .array()
                .map(|bytes| self.number(u8::from_be_bytes(bytes))),
            0xcd => self
                .array()
                .map(|bytes| self.number(u16::from_be_bytes(bytes))),
            0xce => self
                .array()
                .map(|bytes| self.number(u32::from_be_bytes(bytes))),
            0xcf => self
                .array()
                .map(|bytes| self.number(u64::from_be_bytes(bytes))),
            0xd0 => self
                .array()
                .map(|bytes| self.number(i8::from_be_bytes(bytes))),
            0xd1 => self
                .array()
                .map(|bytes| self.number(i16::from_be_bytes(bytes))),
            0xd2 => self
                .array()
                .map(|bytes| self.number(i32::from_be_bytes(bytes))),
            0xd3 => self
                .array()
                .map(|bytes| self.number(i64::from_be_bytes(bytes))),
            0xc4..=0xc6 => {
                let len = self.length(marker)?;
                self.bytes(start, len)
            }
            0xd9..=0xdb => {
                let len = self.length(marker)?;
                self.text(start, len)
            }
            _ => Err(self.failure(start, "the byte 0xc1 begins no value")),
        }
    }

    fn number<N>(&self, number: N) -> Bound<'py, PyAny>
    where
        N: IntoPyObject<'py, Target = PyInt, Output = Bound<'py, PyInt>, Error = Infallible>,
    {
        let Ok(number) = number.into_pyobject(self.py);
        number.into_any()
    }

    fn float(&self, value: f64) -> Bound<'py, PyAny> {
        PyFloat::new(self.py, value).into_any()
    }

    fn text(&mut self, start: usize, len: usize) -> Outcome<Bound<'py, PyAny>> {
        let body = self.take(start, len)?;
        match PyString::from_bytes(self.py, body) {
            Ok(text) => Ok(text.into_any()),
            Err(_) => Err(self.failure(start, "a text is not UTF-8")),
        }
    }

    fn bytes(&mut self, start: usize, len: usize) -> Outcome<Bound<'py, PyAny>> {
        let body = self.take(start, len)?;
        Ok(PyBytes::new(self.py, body).into_any())
    }

    fn list(&mut self, start: usize, len: usize) -> Outcome<Bound<'py, PyAny>> {
        self.enter(start, len)?;
        let first = self.items.len();
        self.read_items(len)?;
        let list = PyList::new(self.py, self.items.drain(first..));
        self.leave();
        match list {
            Ok(list) => Ok(list.into_any()),
            Err(_) => Err(self.failure(start, "memory ran out while a list was built")),
        }
    }

    /// Reads `len` items onto `items`. They stay there on a failure, and go with the decoder.
    pub(super) fn read_items(&mut self, len: usize) -> Outcome<()> {
        for _ in 0..len {
            self.owed -= 1;
            let item = self.value()?;
            self.items.push(item);
        }
        Ok(())
    }

    fn map(&mut self, start: usize, len: usize) -> Outcome<Bound<'py, PyAny>> {
        self.enter(start, 2 * len)?;
        let dict = PyDict::new(self.py);
        for _ in 0..len {
            let at = self.pos;
            self.owed -= 1;
            let key = self.key()?;
            self.owed -= 1;
            let value = self.value()?;
            if dict.set_item(key, value).is_err() {
                return Err(self.failure(at, "the key of a map cannot be a key of a dict"));
            }
        }
        self.leave();
        if dict.len() != len {
            return Err(self.failure(start, "two keys of a map are equal"));
        }
        Ok(dict.into_any())
    }

    /// Reads a key. Short texts come from a store, all else is read like any value.
    fn key(&mut self) -> Outcome<Bound<'py, PyAny>> {
        let start = self.pos;
        let len = match self.input.get(start) {
            Some(marker @ 0xa0..=0xbf) if start < self.end => usize::from(marker & 0x1f),
            _ => return self.value(),
        };
        self.pos += 1;
        let body = self.take(start, len)?;
        match self.keys.text(self.py, body) {
            Ok(text) => Ok(text.into_any()),
            Err(_) => Err(self.failure(start, "a text is not UTF-8")),
        }
    }

    /// Opens a container that claims `len` items.
    pub(super) fn enter(&mut self, start: usize, len: usize) -> Outcome<()> {
        if self.depth >= MAX_DEPTH {
            return Err(self.failure(
                start,
                format!("containers nest deeper than {MAX_DEPTH} here"),
            ));
        }
        let left = self.end - self.pos;
        let owed = self.owed.saturating_add(len);
        if owed > left {
            return Err(self.failure(
                start,
                format!("a container claims {len} items, too many for the {left} bytes left"),
            ));
        }
        self.owed = owed;
        self.depth += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Reads the header of an array, and nothing but an array.
    pub(super) fn array_header(&mut self, start: usize) -> Outcome<usize> {
        match self.byte()? {
            marker @ 0x90..=0x9f => Ok(usize::from(marker & 0x0f)),
            marker @ (0xdc | 0xdd) => self.length(marker),
            _ => Err(self.failure(start, "the body of an extension is no array")),
        }
    }

    fn byte(&mut self) -> Outcome<u8> {
        if self.pos < self.end
            && let Some(&byte) = self.input.get(self.pos)
        {
            self.pos += 1;
            return Ok(byte);
        }
        Err(self.failure(self.pos, "a value is missing: the bytes end here"))
    }

    /// Reads the length that follows `marker`, as wide as the marker says.
    fn length(&mut self, marker: u8) -> Outcome<usize> {
        match marker {
            0xc4 | 0xc7 | 0xd9 => Ok(usize::from(u8::from_be_bytes(self.array()?))),
            0xc5 | 0xc8 | 0xda | 0xdc | 0xde => Ok(usize::from(u16::from_be_bytes(self.array()?))),
            _ => Ok(u32::from_be_bytes(self.array()?) as usize),
        }
    }

    /// Reads `N` bytes of a number.
    pub(super) fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        match self
            .input
            .get(self.pos..self.end)
            .and_then(|rest| rest.first_chunk())
        {
            Some(bytes) => {
                self.pos += N;
                Ok(*bytes)
            }
            None => Err(self.failure(self.pos, "a number is cut off: the bytes end here")),
        }
    }

    /// Takes the `len` bytes of the item that began at `start`.
    pub(super) fn take(&mut self, start: usize, len: usize) -> Outcome<&'a [u8]> {
        let input = self.input;
        let rest = input.get(self.pos..self.end).unwrap_or_default();
        match rest.get(..len) {
            Some(body) => {
                self.pos += len;
                Ok(body)
            }
            None => Err(self.failure(
                start,
                format!(
                    "an item of {len} bytes is cut off: {} bytes are left",
                    rest.len()
                ),
            )),
        }
    }

    #[cold]
    pub(super) fn failure(&self, offset: usize, reason: impl Into<String>) -> Box<DecodeFailure> {
        Box::new(DecodeFailure {
            offset,
            reason: reason.into(),
        })
    }
}
