//! The walk from a Python value to bytes: the forms that MessagePack has of its own.
//!
//! Promises the shortest form of every item, a depth and a size that are checked as it goes, and a
//! [`Refusal`] that knows its way back to the root. Refuses to know the richer types, which are in
//! `encode_extension`, beyond handing them over.

use pyo3::PyTypeInfo;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{
    PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple, PyType,
};

use super::decode::Decoder;
use super::{EncodeFailure, MAX_DEPTH, MAX_PAYLOAD_BYTES};

/// A refusal on its way up. It is boxed so that the success of the hot path stays one word wide.
pub(super) struct Refusal {
    /// The parts of the path, innermost first.
    path: Vec<String>,
    type_name: String,
    reason: String,
}

pub(super) type Step = Result<(), Box<Refusal>>;

/// Parts of a path that are shown at either end when it is longer than twice this.
const PATH_PARTS: usize = 8;
/// Characters of a dict key that are shown in a path.
const KEY_CHARS: usize = 40;

impl Refusal {
    pub(super) fn new(obj: &Bound<'_, PyAny>, reason: impl Into<String>) -> Box<Self> {
        let reason = reason.into();
        Box::new(Refusal {
            path: Vec::new(),
            type_name: type_name(&obj.get_type()),
            reason,
        })
    }

    /// Says where, one level further out. Out of line, to keep the frames of the walk small.
    #[cold]
    pub(super) fn at(mut self: Box<Self>, part: &str) -> Box<Self> {
        self.path.push(part.to_owned());
        self
    }

    #[cold]
    pub(super) fn at_index(mut self: Box<Self>, index: usize) -> Box<Self> {
        self.path.push(format!("[{index}]"));
        self
    }

    #[cold]
    fn in_key(mut self: Box<Self>, position: usize) -> Box<Self> {
        self.path.push(format!("<key {position}>"));
        self
    }

    #[cold]
    fn at_key(mut self: Box<Self>, key: &Bound<'_, PyAny>, position: usize) -> Box<Self> {
        self.path.push(key_part(key, position));
        self
    }

    pub(super) fn into_failure(self) -> EncodeFailure {
        let Refusal {
            path: parts,
            type_name,
            reason,
        } = self;
        let mut path = String::from("$");
        if parts.len() > 2 * PATH_PARTS {
            path.extend(parts.iter().rev().take(PATH_PARTS).map(String::as_str));
            path.push_str("...");
            path.extend(parts.iter().take(PATH_PARTS).rev().map(String::as_str));
        } else {
            path.extend(parts.iter().rev().map(String::as_str));
        }
        EncodeFailure {
            path,
            type_name,
            reason,
        }
    }
}

/// The name under which a reader finds the type, `builtins.` left away.
fn type_name(ty: &Bound<'_, PyType>) -> String {
    match ty.fully_qualified_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => String::from("type without a name"),
    }
}

/// The part of a path that a key adds. Only texts and integers are shown: they are what a reader
/// looks for, and showing them runs no code of the value's own.
fn key_part(key: &Bound<'_, PyAny>, position: usize) -> String {
    if let Ok(text) = key.cast_exact::<PyString>() {
        let text = text.to_string_lossy();
        let mut shown: String = text.chars().take(KEY_CHARS).collect();
        if shown.len() < text.len() {
            shown.push_str("...");
        }
        return format!("['{}']", shown.escape_debug());
    }
    match key
        .cast_exact::<PyInt>()
        .ok()
        .and_then(|number| number.extract::<i64>().ok())
    {
        Some(number) => format!("[{number}]"),
        None => format!("<value of key {position}>"),
    }
}

pub(super) struct Encoder<'out, 'py> {
    pub(super) py: Python<'py>,
    pub(super) out: &'out mut Vec<u8>,
    /// The length that `out` may not pass.
    limit: usize,
    /// Where the value begins in `out`.
    start: usize,
    /// Containers that are open around the current item.
    depth: usize,
    /// How many values were written in a plain form.
    pub(super) shaped: usize,
    /// Whether there are keys or members in a plain form, which may be equal to one another.
    pub(super) may_collide: bool,
    /// Whether what has no form at all may be pickled.
    pub(super) pickles: bool,
    /// Whether anything was.
    pub(super) pickled: bool,
}

/// Binds `$obj` as a `$T` when that is its exact type. The pointers are compared first: a failed
/// cast would build an error that nobody reads.
macro_rules! exactly {
    ($self:ident, $obj:ident: $T:ty) => {
        if $obj.get_type_ptr() == <$T>::type_object_raw($self.py) {
            $obj.cast_exact::<$T>().ok()
        } else {
            None
        }
    };
}
pub(super) use exactly;

impl<'out, 'py> Encoder<'out, 'py> {
    pub(super) fn new(py: Python<'py>, out: &'out mut Vec<u8>, pickles: bool) -> Self {
        let start = out.len();
        Encoder {
            py,
            out,
            limit: start.saturating_add(MAX_PAYLOAD_BYTES),
            start,
            depth: 0,
            shaped: 0,
            may_collide: false,
            pickles,
            pickled: false,
        }
    }

    /// Writes it all; whether there is a pickle in it.
    pub(super) fn run(mut self, obj: &Bound<'py, PyAny>) -> Result<bool, Box<Refusal>> {
        self.value(obj)?;
        // A scalar is written before it is weighed; the last one is weighed here.
        self.weigh(obj, 0)?;
        // Which plain forms are equal to which is for Python to say; the decoder asks it.
        let written = &self.out[self.start..];
        if self.may_collide && Decoder::new(self.py, written, self.pickles).run().is_err() {
            return Err(collision(obj));
        }
        Ok(self.pickled)
    }

    /// Writes one value of any kind. The order is that of how often the kinds are met.
    pub(super) fn value(&mut self, obj: &Bound<'py, PyAny>) -> Step {
        if let Some(text) = exactly!(self, obj: PyString) {
            return self.text(text);
        }
        if let Some(number) = exactly!(self, obj: PyInt) {
            return match number.extract::<i64>() {
                Ok(small) => {
                    self.integer(small);
                    Ok(())
                }
                Err(_) => self.big_integer(number),
            };
        }
        if let Some(number) = exactly!(self, obj: PyFloat) {
            self.float(number.value());
            return Ok(());
        }
        if obj.is_none() {
            self.out.push(0xc0);
            return Ok(());
        }
        if let Some(truth) = exactly!(self, obj: PyBool) {
            self.out.push(if truth.is_true() { 0xc3 } else { 0xc2 });
            return Ok(());
        }
        if let Some(map) = exactly!(self, obj: PyDict) {
            return self.map(map);
        }
        if let Some(list) = exactly!(self, obj: PyList) {
            return self.list(list);
        }
        if let Some(tuple) = exactly!(self, obj: PyTuple) {
            return self.tuple(tuple);
        }
        if let Some(bytes) = exactly!(self, obj: PyBytes) {
            return self.bytes(bytes);
        }
        self.extension(obj)
    }

    pub(super) fn text(&mut self, text: &Bound<'py, PyString>) -> Step {
        let Ok(utf8) = text.to_str() else {
            return Err(lone_surrogate(text));
        };
        self.weigh(text, utf8.len())?;
        self.text_header(utf8.len());
        self.out.extend_from_slice(utf8.as_bytes());
        Ok(())
    }

    fn bytes(&mut self, bytes: &Bound<'py, PyBytes>) -> Step {
        let body = bytes.as_bytes();
        self.weigh(bytes, body.len())?;
        match body.len() {
            len @ 0..=0xff => self.out.extend_from_slice(&[0xc4, len as u8]),
            len @ 0x100..=0xffff => self.tagged(0xc5, (len as u16).to_be_bytes()),
            len => self.tagged(0xc6, (len as u32).to_be_bytes()),
        }
        self.out.extend_from_slice(body);
        Ok(())
    }

    pub(super) fn float(&mut self, value: f64) {
        self.tagged(0xcb, value.to_bits().to_be_bytes());
    }

    #[inline]
    pub(super) fn integer(&mut self, value: i64) {
        match value {
            -32..=127 => self.out.push(value as u8),
            128..=0xff => self.out.extend_from_slice(&[0xcc, value as u8]),
            0x100..=0xffff => self.tagged(0xcd, (value as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.tagged(0xce, (value as u32).to_be_bytes()),
            0x1_0000_0000.. => self.tagged(0xcf, (value as u64).to_be_bytes()),
            -0x80..=-33 => self.out.extend_from_slice(&[0xd0, value as u8]),
            -0x8000..=-0x81 => self.tagged(0xd1, (value as i16).to_be_bytes()),
            -0x8000_0000..=-0x8001 => self.tagged(0xd2, (value as i32).to_be_bytes()),
            _ => self.tagged(0xd3, value.to_be_bytes()),
        }
    }

    fn list(&mut self, list: &Bound<'py, PyList>) -> Step {
        let len = list.len();
        self.enter(list, len)?;
        self.array_header(len);
        let mut written = 0;
        // The iterator re-reads the length at every turn, so a list that shrinks ends it early.
        for item in list.iter() {
            self.value(&item)
                .map_err(|refusal| refusal.at_index(written))?;
            self.weigh(&item, 0)?;
            written += 1;
        }
        self.leave();
        if written == len && list.len() == len {
            Ok(())
        } else {
            Err(changed(list))
        }
    }

    fn map(&mut self, dict: &Bound<'py, PyDict>) -> Step {
        let len = dict.len();
        self.enter(dict, len)?;
        self.map_header(len);
        let mut items = dict.iter();
        for position in 0..len {
            // The iterator panics when the dict has changed its size. The lock makes the look at
            // the size and the step one; with a GIL it costs nothing.
            let next = with_critical_section(dict, || {
                if dict.len() == len {
                    items.next()
                } else {
                    None
                }
            });
            let Some((key, value)) = next else {
                return Err(changed(dict));
            };
            let shaped = self.shaped;
            self.value(&key)
                .map_err(|refusal| refusal.in_key(position))?;
            self.may_collide |= self.shaped != shaped;
            self.value(&value)
                .map_err(|refusal| refusal.at_key(&key, position))?;
            self.weigh(&value, 0)?;
        }
        self.leave();
        if dict.len() == len {
            Ok(())
        } else {
            Err(changed(dict))
        }
    }

    pub(super) fn array_header(&mut self, len: usize) {
        match len {
            0..=0xf => self.out.push(0x90 | len as u8),
            0x10..=0xffff => self.tagged(0xdc, (len as u16).to_be_bytes()),
            // `enter` has refused what does not fit the payload, hence also what does not fit u32.
            _ => self.tagged(0xdd, (len as u32).to_be_bytes()),
        }
    }

    fn map_header(&mut self, len: usize) {
        match len {
            0..=0xf => self.out.push(0x80 | len as u8),
            0x10..=0xffff => self.tagged(0xde, (len as u16).to_be_bytes()),
            _ => self.tagged(0xdf, (len as u32).to_be_bytes()),
        }
    }

    fn text_header(&mut self, len: usize) {
        match len {
            0..=0x1f => self.out.push(0xa0 | len as u8),
            0x20..=0xff => self.out.extend_from_slice(&[0xd9, len as u8]),
            0x100..=0xffff => self.tagged(0xda, (len as u16).to_be_bytes()),
            _ => self.tagged(0xdb, (len as u32).to_be_bytes()),
        }
    }

    /// One marker byte and its number of up to 8 bytes, in one write.
    #[inline]
    pub(super) fn tagged<const N: usize>(&mut self, marker: u8, number: [u8; N]) {
        let mut item = [marker; 9];
        item[1..=N].copy_from_slice(&number);
        self.out.extend_from_slice(&item[..=N]);
    }

    /// Opens a container of `len` items, each of which takes a byte at least.
    pub(super) fn enter(&mut self, container: &Bound<'py, PyAny>, len: usize) -> Step {
        if self.depth >= MAX_DEPTH {
            return Err(too_deep(container));
        }
        self.weigh(container, len)?;
        self.out.reserve(len);
        self.depth += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Refuses when what is written and `more` bytes to come pass the limit.
    #[inline]
    pub(super) fn weigh(&self, obj: &Bound<'py, PyAny>, more: usize) -> Step {
        // Neither term passes isize::MAX, so the sum cannot wrap.
        if self.out.len() + more > self.limit {
            return Err(too_large(obj));
        }
        Ok(())
    }
}

#[cold]
fn too_deep(obj: &Bound<'_, PyAny>) -> Box<Refusal> {
    Refusal::new(
        obj,
        format!(
            "containers nest deeper than {MAX_DEPTH} here, or the value contains itself; pass a \
             flatter value"
        ),
    )
}

#[cold]
fn too_large(obj: &Bound<'_, PyAny>) -> Box<Refusal> {
    Refusal::new(
        obj,
        format!(
            "the whole value takes more than {MAX_PAYLOAD_BYTES} bytes when encoded; store it \
             elsewhere and pass a reference to it"
        ),
    )
}

#[cold]
fn lone_surrogate(text: &Bound<'_, PyString>) -> Box<Refusal> {
    Refusal::new(
        text,
        "the text holds a lone surrogate, which has no UTF-8 form; pass bytes, or re-encode it with \
         errors='replace'",
    )
}

#[cold]
pub(super) fn changed(container: &Bound<'_, PyAny>) -> Box<Refusal> {
    Refusal::new(
        container,
        "it changed while it was being encoded; do not share a value with code that still writes \
         to it, or pass a copy",
    )
}

#[cold]
fn collision(obj: &Bound<'_, PyAny>) -> Box<Refusal> {
    Refusal::new(
        obj,
        "two keys of a dict in it, or two members of a set, are different, but would be equal once \
         stored, such as members of two Enums with one value; make them differ",
    )
}

/// Refuses a value of a type that is not carried, and says which type to turn it into if that is
/// plain to see.
#[cold]
pub(super) fn unknown(obj: &Bound<'_, PyAny>) -> Box<Refusal> {
    let base = if obj.is_instance_of::<PyDict>() {
        "dict"
    } else if obj.is_instance_of::<PyList>() {
        "list"
    } else if obj.is_instance_of::<PyTuple>() {
        "tuple"
    } else if obj.is_instance_of::<PyString>() {
        "str"
    } else if obj.is_instance_of::<PyInt>() {
        "int"
    } else if obj.is_instance_of::<PyFloat>() {
        "float"
    } else if obj.is_instance_of::<PyBytes>() {
        "bytes"
    } else if obj.is_instance_of::<PySet>() {
        "set"
    } else if obj.is_instance_of::<PyFrozenSet>() {
        "frozenset"
    } else {
        return Refusal::new(
            obj,
            "values of this type are not carried; pass plain data (None, bool, int, float, str, \
             bytes, list, tuple, dict, set, frozenset, dates and times, Decimal, UUID), a \
             dataclass, an Enum, a NamedTuple, or a model of msgspec or pydantic",
        );
    };
    Refusal::new(
        obj,
        format!(
            "it is a subclass of {base}, and only {base} itself would come back as what it was; \
             convert it to {base} first"
        ),
    )
}
