//! From JSON text back to MessagePack: the other way of [`super::to_json`].
//!
//! Promises, for any input: no panic, no recursion past the depth of values, and no memory but for
//! what is written, which is at most a small multiple of the text. Takes the forms that are written
//! and strict JSON around them; anything else is a failure that says at which byte. Whether the
//! values make sense (two equal keys, a day that does not exist) the value codec finds out when it
//! reads the result. Containers are written with their widest headers, since how much is in them is
//! known last. Refuses to know Python.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::clock_text;
use crate::value::{MAX_DEPTH, code};

/// What a text holds.
pub struct Found {
    /// The value as MessagePack.
    pub body: Vec<u8>,
    /// Whether there are pickles in it.
    pub pickled: bool,
}

/// Reads the one value that the text holds.
///
/// # Errors
/// A clause that says what is wrong at which byte, without any part of the text.
pub fn from_json(text: &[u8]) -> Result<Found, String> {
    let mut reader = Reader {
        text,
        at: 0,
        out: Vec::with_capacity(text.len()),
        pickled: false,
    };
    let read = reader.value(0).and_then(|()| reader.end());
    match read {
        Ok(()) => Ok(Found {
            body: reader.out,
            pickled: reader.pickled,
        }),
        Err(reason) => Err(format!(
            "the stored JSON is damaged or foreign at byte {}: {reason}",
            reader.at
        )),
    }
}

type Step<T = ()> = Result<T, &'static str>;

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
    pickled: bool,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, mark: u8) -> bool {
        let found = self.peek() == Some(mark);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: u8) -> Step {
        if self.eat(mark) {
            return Ok(());
        }
        Err(match mark {
            b'[' => "an array is missing",
            b']' => "an array does not end",
            b'}' => "an object does not end",
            b':' => "a colon is missing",
            b',' => "a comma is missing",
            _ => "a text is missing",
        })
    }

    fn end(&mut self) -> Step {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err("the value ends here and something follows it"),
        }
    }

    fn value(&mut self, depth: usize) -> Step {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => {
                let text = self.text()?;
                self.put_text(&text)
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.word(b"null", 0xc0),
            Some(b't') => self.word(b"true", 0xc3),
            Some(b'f') => self.word(b"false", 0xc2),
            Some(_) => Err("no value begins like this"),
            None => Err("a value is missing: the text ends here"),
        }
    }

    fn word(&mut self, word: &[u8], marker: u8) -> Step {
        if !self.text[self.at..].starts_with(word) {
            return Err("no value begins like this");
        }
        self.at += word.len();
        self.out.push(marker);
        Ok(())
    }

    fn number(&mut self) -> Step {
        let start = self.at;
        self.at += usize::from(self.text[start] == b'-');
        let whole = self.digits();
        let zero_first = self.text.get(self.at - whole) == Some(&b'0');
        let mut plain = true;
        if whole == 0 || (zero_first && whole > 1) {
            return Err("a number is malformed");
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            plain = false;
            if self.digits() == 0 {
                return Err("a number is malformed");
            }
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            plain = false;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err("a number is malformed");
            }
        }
        let text =
            std::str::from_utf8(&self.text[start..self.at]).map_err(|_| "a number is malformed")?;
        if plain {
            if let Ok(number) = text.parse::<i64>() {
                self.put_integer(number);
                return Ok(());
            }
            let number: u64 = text.parse().map_err(|_| "an integer is too large")?;
            self.out.push(0xcf);
            self.out.extend(number.to_be_bytes());
            return Ok(());
        }
        let number: f64 = text.parse().map_err(|_| "a number is malformed")?;
        if number.is_infinite() {
            return Err("a number is too large");
        }
        self.put_float(number.to_bits());
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// An integer that stands where one must, within these bounds.
    fn integer(&mut self, least: i64, most: i64) -> Step<i64> {
        self.peek();
        let start = self.at;
        self.at += usize::from(self.text.get(start) == Some(&b'-'));
        self.digits();
        std::str::from_utf8(&self.text[start..self.at])
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|number| (least..=most).contains(number))
            .ok_or("an integer is missing or out of range")
    }

    /// A text, without the quotes.
    fn text(&mut self) -> Step<String> {
        self.expect(b'"')?;
        let mut found: Vec<u8> = Vec::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = rest
                .iter()
                .take_while(|byte| **byte >= 0x20 && **byte != b'"' && **byte != b'\\')
                .count();
            found.extend_from_slice(&rest[..plain]);
            self.at += plain;
            match rest.get(plain) {
                Some(b'"') => {
                    self.at += 1;
                    return String::from_utf8(found).map_err(|_| "a text is not UTF-8");
                }
                Some(b'\\') => {
                    self.at += 1;
                    let mut buffer = [0; 4];
                    let escaped = self.escape()?;
                    found.extend_from_slice(escaped.encode_utf8(&mut buffer).as_bytes());
                }
                Some(_) => return Err("a text holds a control character"),
                None => return Err("a text does not end"),
            }
        }
    }

    fn escape(&mut self) -> Step<char> {
        let mark = self.text.get(self.at).copied();
        self.at += 1;
        Ok(match mark {
            Some(mark @ (b'"' | b'\\' | b'/')) => char::from(mark),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let mut number = self.four_digits()?;
                if (0xd800..0xdc00).contains(&number) {
                    if !self.text[self.at..].starts_with(b"\\u") {
                        return Err("a text holds half a character");
                    }
                    self.at += 2;
                    let low = self.four_digits()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err("a text holds half a character");
                    }
                    number = 0x1_0000 + ((number - 0xd800) << 10) + (low - 0xdc00);
                }
                char::from_u32(number).ok_or("a text holds half a character")?
            }
            _ => return Err("a text holds an unknown escape"),
        })
    }

    fn four_digits(&mut self) -> Step<u32> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("a text holds a malformed escape");
        }
        self.at += 4;
        Ok(digits.iter().fold(0, |number, digit| {
            number << 4 | char::from(*digit).to_digit(16).unwrap_or(0)
        }))
    }

    fn array(&mut self, depth: usize) -> Step {
        self.expect(b'[')?;
        self.array_items(depth)
    }

    /// The items of an array behind its bracket, and the closing one.
    fn array_items(&mut self, depth: usize) -> Step {
        if depth >= MAX_DEPTH {
            return Err("containers nest too deep");
        }
        let header = self.open(0xdd);
        let mut count = 0u32;
        if !self.eat(b']') {
            loop {
                self.value(depth + 1)?;
                count += 1;
                if self.eat(b']') {
                    break;
                }
                self.expect(b',')?;
            }
        }
        self.close(header, count);
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Step {
        if depth > MAX_DEPTH {
            return Err("containers nest too deep");
        }
        self.expect(b'{')?;
        let header = self.out.len();
        let mut count = 0u32;
        if !self.eat(b'}') {
            loop {
                self.peek();
                let key = self.text()?;
                self.expect(b':')?;
                if key.starts_with('$') {
                    if count > 0 {
                        return Err("a key with a $ stands beside others");
                    }
                    self.tagged(&key, depth)?;
                    return self.expect(b'}');
                }
                if count == 0 {
                    self.open(0xdf);
                }
                self.put_text(&key)?;
                self.value(depth + 1)?;
                count += 1;
                if self.eat(b'}') {
                    break;
                }
                self.expect(b',')?;
            }
        } else {
            self.open(0xdf);
        }
        if depth >= MAX_DEPTH {
            return Err("containers nest too deep");
        }
        self.close(header, count);
        Ok(())
    }

    fn tagged(&mut self, tag: &str, depth: usize) -> Step {
        match tag {
            "$dict" => self.pairs(depth),
            "$tuple" => self.items(code::TUPLE, depth),
            "$set" => self.items(code::SET, depth),
            "$frozenset" => self.items(code::FROZENSET, depth),
            "$event_timeout" => self.items(code::EVENT_TIMEOUT, depth),
            "$map_error" => self.items(code::MAP_ERROR, depth),
            "$loop" => self.loop_result(depth),
            "$timedelta" => {
                self.expect(b'[')?;
                let days = self.integer(i32::MIN.into(), i32::MAX.into())? as i32;
                self.expect(b',')?;
                let seconds = self.integer(0, u32::MAX.into())? as u32;
                self.expect(b',')?;
                let micros = self.integer(0, u32::MAX.into())? as u32;
                self.expect(b']')?;
                let body = [
                    days.to_be_bytes(),
                    seconds.to_be_bytes(),
                    micros.to_be_bytes(),
                ];
                self.put_extension(code::TIMEDELTA, body.as_flattened())
            }
            "$ext" => {
                self.expect(b'[')?;
                let code = self.integer(-128, 127)? as i8;
                self.expect(b',')?;
                let body = self.base64()?;
                self.pickled |= code == code::PICKLE;
                self.expect(b']')?;
                self.put_extension(code, &body)
            }
            "$bytes" => {
                let bytes = self.base64()?;
                self.out.push(0xc6);
                self.put_length(bytes.len())?;
                self.out.extend(bytes);
                Ok(())
            }
            "$pickle" => {
                let bytes = self.base64()?;
                self.pickled = true;
                self.put_extension(code::PICKLE, &bytes)
            }
            _ => {
                let text = self.text()?;
                self.written(tag, &text)
            }
        }
    }

    /// What is written as a text.
    fn written(&mut self, tag: &str, text: &str) -> Step {
        let (code, body) = match tag {
            "$float" => {
                let bits = match text {
                    "nan" => f64::NAN.to_bits(),
                    "inf" => f64::INFINITY.to_bits(),
                    "-inf" => f64::NEG_INFINITY.to_bits(),
                    _ => text
                        .strip_prefix("0x")
                        .filter(|digits| digits.len() == 16)
                        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                        .filter(|bits| f64::from_bits(*bits).is_nan())
                        .ok_or("a $float is malformed")?,
                };
                self.put_float(bits);
                return Ok(());
            }
            "$int" => (code::BIG_INT, twos_complement(text)),
            "$datetime" => (code::DATETIME, clock_text::datetime_body(text)),
            "$date" => (code::DATE, clock_text::date_body(text)),
            "$time" => (code::TIME, clock_text::time_body(text)),
            "$decimal" => (code::DECIMAL, Some(text.as_bytes().to_vec())),
            "$uuid" => (code::UUID, uuid(text)),
            _ => return Err("a key with a $ is unknown to this program"),
        };
        self.put_extension(
            code,
            &body.ok_or("the text behind a key with a $ is malformed")?,
        )
    }

    fn base64(&mut self) -> Step<Vec<u8>> {
        let text = self.text()?;
        BASE64.decode(text).map_err(|_| "base64 is malformed")
    }

    /// A dict as pairs.
    fn pairs(&mut self, depth: usize) -> Step {
        if depth >= MAX_DEPTH {
            return Err("containers nest too deep");
        }
        self.expect(b'[')?;
        let header = self.open(0xdf);
        let mut count = 0u32;
        if !self.eat(b']') {
            loop {
                self.expect(b'[')?;
                self.value(depth + 1)?;
                self.expect(b',')?;
                self.value(depth + 1)?;
                self.expect(b']')?;
                count += 1;
                if self.eat(b']') {
                    break;
                }
                self.expect(b',')?;
            }
        }
        self.close(header, count);
        Ok(())
    }

    /// An extension whose body is an array.
    fn items(&mut self, code: i8, depth: usize) -> Step {
        let header = self.open(0xc9);
        self.out.push(code as u8);
        self.array(depth)?;
        self.close_extension(header)
    }

    fn loop_result(&mut self, depth: usize) -> Step {
        if depth >= MAX_DEPTH {
            return Err("containers nest too deep");
        }
        let header = self.open(0xc9);
        self.out.extend([code::LOOP_RESULT as u8, 0x92]);
        self.expect(b'[')?;
        if !matches!(self.peek(), Some(b't' | b'f')) {
            return Err("a $loop is malformed");
        }
        self.value(depth + 1)?;
        self.expect(b',')?;
        self.value(depth + 1)?;
        self.expect(b']')?;
        self.close_extension(header)
    }

    /// A marker and room for a number of 32 bits; where it begins.
    fn open(&mut self, marker: u8) -> usize {
        let header = self.out.len();
        self.out.extend([marker, 0, 0, 0, 0]);
        header
    }

    fn close(&mut self, header: usize, count: u32) {
        self.out[header + 1..header + 5].copy_from_slice(&count.to_be_bytes());
    }

    fn close_extension(&mut self, header: usize) -> Step {
        let len = self.out.len() - header - 6;
        self.close(
            header,
            u32::try_from(len).map_err(|_| "a value is too large")?,
        );
        Ok(())
    }

    fn put_length(&mut self, len: usize) -> Step {
        let len = u32::try_from(len).map_err(|_| "a value is too large")?;
        self.out.extend(len.to_be_bytes());
        Ok(())
    }

    fn put_text(&mut self, text: &str) -> Step {
        match text.len() {
            len @ 0..=0x1f => self.out.push(0xa0 | len as u8),
            len @ 0x20..=0xff => self.out.extend([0xd9, len as u8]),
            len => {
                self.out.push(0xdb);
                self.put_length(len)?;
            }
        }
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn put_float(&mut self, bits: u64) {
        self.out.push(0xcb);
        self.out.extend(bits.to_be_bytes());
    }

    fn put_integer(&mut self, number: i64) {
        match number {
            -32..=127 => self.out.push(number as u8),
            -0x80..=-33 => self.out.extend([0xd0, number as u8]),
            128..=0xff => self.out.extend([0xcc, number as u8]),
            _ => match i32::try_from(number) {
                Ok(small) => {
                    self.out.push(0xd2);
                    self.out.extend(small.to_be_bytes());
                }
                Err(_) => {
                    self.out.push(0xd3);
                    self.out.extend(number.to_be_bytes());
                }
            },
        }
    }

    fn put_extension(&mut self, code: i8, body: &[u8]) -> Step {
        self.out.push(0xc9);
        self.put_length(body.len())?;
        self.out.push(code as u8);
        self.out.extend_from_slice(body);
        Ok(())
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// The bytes behind hexadecimal digits, of which the first may be missing.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let (odd, pairs) = digits.split_at(digits.len() % 2);
    let mut bytes = Vec::with_capacity(digits.len() / 2 + 1);
    for digit in odd {
        bytes.push(nibble(*digit)?);
    }
    for pair in pairs.chunks_exact(2) {
        bytes.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    Some(bytes)
}

fn uuid(text: &str) -> Option<Vec<u8>> {
    let dashes = [8, 13, 18, 23];
    let shaped = text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| (byte == b'-') == dashes.contains(&at));
    unhex(&text.replace('-', "")).filter(|_| shaped)
}

/// The shortest two's complement of a sign and hexadecimal digits.
fn twos_complement(text: &str) -> Option<Vec<u8>> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let mut bytes = unhex(digits.strip_prefix("0x")?)?;
    bytes.first()?;
    if negative {
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
        if bytes[0] & 0x80 == 0 {
            bytes.insert(0, 0xff);
        }
    } else if bytes[0] & 0x80 != 0 {
        bytes.insert(0, 0);
    }
    Some(bytes)
}
