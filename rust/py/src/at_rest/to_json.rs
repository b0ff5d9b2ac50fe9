//! From MessagePack to JSON text, for those who read a database with SQL.
//!
//! Promises strict JSON that [`super::from_json`] turns back into the same value, bit by bit. What
//! JSON does not have is an object with one key that begins with `$`; a dict with such keys of its
//! own is written as pairs, so no value can pass for another. What cannot be written (too deep, too
//! large, a body that is not what the format says) is left alone: the answer is `None`, and the
//! bytes stay as they are. Refuses to know Python.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sayiir_core::envelope::{self, codec, kind};

use super::{MAX_JSON_BYTES, clock_text};
use crate::value::{MAX_DEPTH, code};

/// The text of a payload with everything inside; its header says nothing that is lost by that.
pub fn to_json(kind: u8, codec: u8, body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > MAX_JSON_BYTES {
        return None;
    }
    let mut writer = Writer { out: Vec::new() };
    writer.payload(kind, codec, body, 0)?;
    Some(writer.out)
}

struct Writer {
    out: Vec<u8>,
}

/// One item of MessagePack; of a container only how many items follow.
enum Item<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Array(usize),
    Map(usize),
    Extension(i8, &'a [u8]),
}

struct Items<'a> {
    left: &'a [u8],
}

impl<'a> Items<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, left) = self.left.split_at_checked(count)?;
        self.left = left;
        Some(head)
    }

    fn number(&mut self, width: usize) -> Option<u64> {
        let bytes = self.take(width)?;
        Some(bytes.iter().fold(0, |n, byte| (n << 8) | u64::from(*byte)))
    }

    fn sized(&mut self, width: usize) -> Option<&'a [u8]> {
        let count = self.number(width)? as usize;
        self.take(count)
    }

    fn text(body: &'a [u8]) -> Option<Item<'a>> {
        std::str::from_utf8(body).ok().map(Item::Text)
    }

    fn extension(&mut self, count: usize) -> Option<Item<'a>> {
        let code = self.number(1)? as u8 as i8;
        Some(Item::Extension(code, self.take(count)?))
    }

    fn next(&mut self) -> Option<Item<'a>> {
        let marker = self.number(1)? as u8;
        Some(match marker {
            0x00..=0x7f => Item::Unsigned(u64::from(marker)),
            0xe0..=0xff => Item::Signed(i64::from(marker as i8)),
            0x80..=0x8f => Item::Map(usize::from(marker & 0x0f)),
            0x90..=0x9f => Item::Array(usize::from(marker & 0x0f)),
            0xa0..=0xbf => Self::text(self.take(usize::from(marker & 0x1f))?)?,
            0xc0 => Item::Nil,
            0xc1 => return None,
            0xc2 => Item::Bool(false),
            0xc3 => Item::Bool(true),
            0xc4 => Item::Bytes(self.sized(1)?),
            0xc5 => Item::Bytes(self.sized(2)?),
            0xc6 => Item::Bytes(self.sized(4)?),
            0xc7..=0xc9 => {
                let count = self.number(1 << (marker - 0xc7))? as usize;
                self.extension(count)?
            }
            0xca => Item::Float(f64::from(f32::from_bits(self.number(4)? as u32))),
            0xcb => Item::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Item::Unsigned(self.number(1 << (marker - 0xcc))?),
            0xd0 => Item::Signed(i64::from(self.number(1)? as i8)),
            0xd1 => Item::Signed(i64::from(self.number(2)? as i16)),
            0xd2 => Item::Signed(i64::from(self.number(4)? as i32)),
            0xd3 => Item::Signed(self.number(8)? as i64),
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4))?,
            0xd9 => Self::text(self.sized(1)?)?,
            0xda => Self::text(self.sized(2)?)?,
            0xdb => Self::text(self.sized(4)?)?,
            0xdc => Item::Array(self.number(2)? as usize),
            0xdd => Item::Array(self.number(4)? as usize),
            0xde => Item::Map(self.number(2)? as usize),
            0xdf => Item::Map(self.number(4)? as usize),
        })
    }
}

impl Writer {
    fn put(&mut self, text: &str) -> Option<()> {
        self.out.extend_from_slice(text.as_bytes());
        (self.out.len() <= MAX_JSON_BYTES).then_some(())
    }

    fn payload(&mut self, kind: u8, codec: u8, body: &[u8], depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let nested = |writer: &mut Self, payload: &[u8]| {
            let view = envelope::open(payload).ok()?;
            writer.payload(view.kind, view.codec, view.body, depth + 1)
        };
        match kind {
            kind::VALUE if codec::is_msgpack(codec) => self.whole(body, depth),
            kind::NAMED => {
                let named = envelope::named_items(body).ok()?;
                if named.iter().any(|(name, _)| name.starts_with('$')) {
                    return None;
                }
                self.put("{")?;
                for (at, (name, payload)) in named.into_iter().enumerate() {
                    self.comma(at)?;
                    self.text(name)?;
                    self.put(":")?;
                    nested(self, payload)?;
                }
                self.put("}")
            }
            kind::LIST => {
                self.put("[")?;
                for (at, range) in envelope::list_items(body).ok()?.into_iter().enumerate() {
                    self.comma(at)?;
                    nested(self, &body[range])?;
                }
                self.put("]")
            }
            kind::BRANCH => {
                let (key, payload) = envelope::branch_parts(body).ok()?;
                self.put("{\"branch\":")?;
                self.text(key)?;
                self.put(",\"result\":")?;
                nested(self, payload)?;
                self.put("}")
            }
            _ => None,
        }
    }

    /// A value that takes up all of the bytes.
    fn whole(&mut self, body: &[u8], depth: usize) -> Option<()> {
        let mut items = Items { left: body };
        self.value(&mut items, depth)?;
        items.left.is_empty().then_some(())
    }

    fn comma(&mut self, at: usize) -> Option<()> {
        if at == 0 { Some(()) } else { self.put(",") }
    }

    fn value(&mut self, items: &mut Items<'_>, depth: usize) -> Option<()> {
        match items.next()? {
            Item::Nil => self.put("null"),
            Item::Bool(true) => self.put("true"),
            Item::Bool(false) => self.put("false"),
            Item::Unsigned(number) => self.put(&number.to_string()),
            Item::Signed(number) => self.put(&number.to_string()),
            Item::Float(number) => self.float(number),
            Item::Text(text) => self.text(text),
            Item::Bytes(bytes) => self.tagged("$bytes", |w| w.base64(bytes)),
            Item::Array(count) => self.array(items, count, depth),
            Item::Map(count) => self.map(items, count, depth),
            Item::Extension(code, body) => self.extension(code, body, depth),
        }
    }

    fn array(&mut self, items: &mut Items<'_>, count: usize, depth: usize) -> Option<()> {
        if depth >= MAX_DEPTH || count > items.left.len() {
            return None;
        }
        self.put("[")?;
        for at in 0..count {
            self.comma(at)?;
            self.value(items, depth + 1)?;
        }
        self.put("]")
    }

    fn map(&mut self, items: &mut Items<'_>, count: usize, depth: usize) -> Option<()> {
        if depth >= MAX_DEPTH || count > items.left.len() / 2 {
            return None;
        }
        let (began, keys) = (self.out.len(), items.left);
        // Nearly every dict has texts for keys; the first other one begins it again as pairs.
        if self.object(items, count, depth)?.is_some() {
            return Some(());
        }
        self.out.truncate(began);
        items.left = keys;
        self.put("{\"$dict\":[")?;
        for at in 0..count {
            self.comma(at)?;
            self.put("[")?;
            self.value(items, depth + 1)?;
            self.put(",")?;
            self.value(items, depth + 1)?;
            self.put("]")?;
        }
        self.put("]}")
    }

    /// As an object; `Some(None)` when a key cannot be one of an object.
    fn object(&mut self, items: &mut Items<'_>, count: usize, depth: usize) -> Option<Option<()>> {
        // All keys are looked at first: what is inside must not be written twice at every level.
        let mut ahead = Items { left: items.left };
        for _ in 0..count {
            match ahead.next()? {
                Item::Text(key) if !key.starts_with('$') => skip(&mut ahead, 1)?,
                _ => return Some(None),
            }
        }
        self.put("{")?;
        for at in 0..count {
            self.comma(at)?;
            let Item::Text(key) = items.next()? else {
                return None;
            };
            self.text(key)?;
            self.put(":")?;
            self.value(items, depth + 1)?;
        }
        self.put("}")?;
        Some(Some(()))
    }

    fn extension(&mut self, code: i8, body: &[u8], depth: usize) -> Option<()> {
        match code {
            code::BIG_INT => self.quoted("$int", &hexadecimal(body)?),
            code::TUPLE => self.items("$tuple", body, depth),
            code::SET => self.items("$set", body, depth),
            code::FROZENSET => self.items("$frozenset", body, depth),
            code::LOOP_RESULT => self.items("$loop", body, depth),
            code::EVENT_TIMEOUT => self.items("$event_timeout", body, depth),
            code::MAP_ERROR => self.items("$map_error", body, depth),
            code::DATETIME => self.quoted("$datetime", &clock_text::datetime(body)?),
            code::DATE => self.quoted("$date", &clock_text::date(body)?),
            code::TIME => self.quoted("$time", &clock_text::time(body)?),
            code::TIMEDELTA => {
                let days = i32::from_be_bytes(*body.first_chunk()?);
                let seconds = u32::from_be_bytes(*body.get(4..)?.first_chunk()?);
                let micros = u32::from_be_bytes(body.get(8..)?.try_into().ok()?);
                self.tagged("$timedelta", |w| {
                    w.put(&format!("[{days},{seconds},{micros}]"))
                })
            }
            code::DECIMAL => self.quoted("$decimal", std::str::from_utf8(body).ok()?),
            code::UUID => {
                let digits = hex(body);
                let parts = [8, 4, 4, 4, 12].iter().scan(0, |at, len| {
                    *at += len;
                    digits.get(*at - len..*at)
                });
                let text = parts.collect::<Vec<_>>().join("-");
                (body.len() == 16).then_some(())?;
                self.quoted("$uuid", &text)
            }
            code::PICKLE => self.tagged("$pickle", |w| w.base64(body)),
            _ => self.tagged("$ext", |w| {
                w.put(&format!("[{code},"))?;
                w.base64(body)?;
                w.put("]")
            }),
        }
    }

    /// An extension whose body is an array.
    fn items(&mut self, tag: &str, body: &[u8], depth: usize) -> Option<()> {
        let mut items = Items { left: body };
        let Item::Array(count) = items.next()? else {
            return None;
        };
        self.tagged(tag, |w| w.array(&mut items, count, depth))?;
        items.left.is_empty().then_some(())
    }

    fn tagged(&mut self, tag: &str, content: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.put("{\"")?;
        self.put(tag)?;
        self.put("\":")?;
        content(self)?;
        self.put("}")
    }

    fn quoted(&mut self, tag: &str, text: &str) -> Option<()> {
        self.tagged(tag, |w| w.text(text))
    }

    fn base64(&mut self, bytes: &[u8]) -> Option<()> {
        if bytes.len() > MAX_JSON_BYTES {
            return None;
        }
        self.put("\"")?;
        self.put(&BASE64.encode(bytes))?;
        self.put("\"")
    }

    fn float(&mut self, number: f64) -> Option<()> {
        if number.is_finite() {
            // The shortest text that reads as the same number, with a point or an exponent.
            return self.put(&format!("{number:?}"));
        }
        let text = match number {
            f64::INFINITY => "inf".to_owned(),
            f64::NEG_INFINITY => "-inf".to_owned(),
            _ if number.to_bits() == f64::NAN.to_bits() => "nan".to_owned(),
            _ => format!("0x{:016x}", number.to_bits()),
        };
        self.quoted("$float", &text)
    }

    fn text(&mut self, text: &str) -> Option<()> {
        self.put("\"")?;
        let mut rest = text;
        while let Some(at) = rest
            .bytes()
            .position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\')
        {
            self.put(&rest[..at])?;
            match rest.as_bytes()[at] {
                b'"' => self.put("\\\"")?,
                b'\\' => self.put("\\\\")?,
                b'\n' => self.put("\\n")?,
                b'\r' => self.put("\\r")?,
                b'\t' => self.put("\\t")?,
                other => self.put(&format!("\\u{other:04x}"))?,
            }
            rest = &rest[at + 1..];
        }
        self.put(rest)?;
        self.put("\"")
    }
}

/// Steps over so many items and all that is in them.
fn skip(items: &mut Items<'_>, count: usize) -> Option<()> {
    let mut open = count;
    while open > 0 {
        open -= 1;
        open += match items.next()? {
            Item::Array(count) => count,
            Item::Map(count) => count.checked_mul(2)?,
            _ => 0,
        };
        if open > items.left.len() {
            return None;
        }
    }
    Some(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The sign and the digits of a number in two's complement.
fn hexadecimal(body: &[u8]) -> Option<String> {
    let negative = body.first()? & 0x80 != 0;
    let mut magnitude = body.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
        if carry {
            return None;
        }
    }
    let digits = hex(&magnitude);
    let digits = digits.trim_start_matches('0');
    Some(format!("{}0x{digits}", if negative { "-" } else { "" }))
}
