//! Dates and times of day as text that a person reads, and back, without any loss.
//!
//! `2024-10-27`, `02:30:15.000250`, `2024-10-27T02:30:15[fold=1][Europe/Berlin]`, `…T00:00:00+02:00`,
//! `…+02:00[name=CEST]`. The binary forms are those of the value codec. What is no such body, or no
//! such text, is `None`; whether there is such a day is for the value codec to say.

use crate::value::zone;

const DAY_US: i64 = 86_400_000_000;

/// The text of a `date`'s body.
pub fn date(body: &[u8]) -> Option<String> {
    let [high, low, month, day] = body.try_into().ok()?;
    let year = u16::from_be_bytes([high, low]);
    let known = year <= 9999 && month <= 99 && day <= 99;
    known.then(|| format!("{year:04}-{month:02}-{day:02}"))
}

/// The text of a `time`'s body.
pub fn time(body: &[u8]) -> Option<String> {
    let (clock, rest) = body.split_first_chunk::<7>()?;
    let [hour, minute, second, high, mid, low, fold] = *clock;
    let micros = u32::from_be_bytes([0, high, mid, low]);
    if hour > 99 || minute > 99 || second > 99 || micros > 999_999 || fold > 1 {
        return None;
    }
    let mut text = format!("{hour:02}:{minute:02}:{second:02}");
    if micros > 0 {
        text += &format!(".{micros:06}");
    }
    let (kind, rest) = rest.split_first()?;
    let (at, name) = match *kind {
        zone::OFFSET | zone::NAMED_OFFSET => {
            let (bytes, name) = rest.split_first_chunk()?;
            (Some(i64::from_be_bytes(*bytes)), name)
        }
        _ => (None, rest),
    };
    if let Some(offset) = at {
        text += &offset_text(offset)?;
    }
    if fold == 1 {
        text += "[fold=1]";
    }
    let name = std::str::from_utf8(name).ok()?;
    match *kind {
        zone::NONE | zone::OFFSET if name.is_empty() => {}
        zone::NAMED_OFFSET => text += &format!("[name={name}]"),
        zone::KEY if zone::is_key(name) => text += &format!("[{name}]"),
        _ => return None,
    }
    Some(text)
}

/// The text of a `datetime`'s body.
pub fn datetime(body: &[u8]) -> Option<String> {
    let (day, clock) = body.split_at_checked(4)?;
    Some(format!("{}T{}", date(day)?, time(clock)?))
}

fn offset_text(offset: i64) -> Option<String> {
    if offset.unsigned_abs() >= DAY_US as u64 {
        return None;
    }
    let sign = if offset < 0 { '-' } else { '+' };
    let us = offset.unsigned_abs();
    let (minutes, us) = (us / 60_000_000, us % 60_000_000);
    let mut text = format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60);
    if us > 0 {
        text += &format!(":{:02}.{:06}", us / 1_000_000, us % 1_000_000);
    }
    Some(text)
}

/// What is left of a text.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn digits(&mut self, count: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        self.0 = rest;
        digits.parse().ok()
    }

    fn small(&mut self) -> Option<u8> {
        self.digits(2).map(|number| number as u8)
    }

    fn mark(&mut self, mark: &str) -> bool {
        let rest = self.0.strip_prefix(mark);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }
}

/// The body of a `date`.
pub fn date_body(text: &str) -> Option<Vec<u8>> {
    let mut text = Text(text);
    let body = day(&mut text)?;
    text.0.is_empty().then_some(body)
}

/// The body of a `time`.
pub fn time_body(text: &str) -> Option<Vec<u8>> {
    clock(Text(text))
}

/// The body of a `datetime`.
pub fn datetime_body(text: &str) -> Option<Vec<u8>> {
    let mut text = Text(text);
    let mut body = day(&mut text)?;
    text.mark("T").then_some(())?;
    body.extend(clock(text)?);
    Some(body)
}

fn day(text: &mut Text<'_>) -> Option<Vec<u8>> {
    let year = text.digits(4)? as u16;
    let month = text.mark("-").then(|| text.small())??;
    let day = text.mark("-").then(|| text.small())??;
    let [high, low] = year.to_be_bytes();
    Some(vec![high, low, month, day])
}

fn clock(mut text: Text<'_>) -> Option<Vec<u8>> {
    let hour = text.small()?;
    let minute = text.mark(":").then(|| text.small())??;
    let second = text.mark(":").then(|| text.small())??;
    let micros = if text.mark(".") { text.digits(6)? } else { 0 };
    let offset = offset(&mut text)?;
    let fold = u8::from(text.mark("[fold=1]"));
    let [_, high, mid, low] = micros.to_be_bytes();
    let mut body = vec![hour, minute, second, high, mid, low, fold];
    let name = match text.0 {
        "" => None,
        rest => Some(rest.strip_prefix('[')?.strip_suffix(']')?),
    };
    match (offset, name) {
        (None, None) => body.push(zone::NONE),
        (Some(offset), None) => {
            body.push(zone::OFFSET);
            body.extend(offset.to_be_bytes());
        }
        (Some(offset), Some(name)) => {
            body.push(zone::NAMED_OFFSET);
            body.extend(offset.to_be_bytes());
            body.extend(name.strip_prefix("name=")?.as_bytes());
        }
        (None, Some(key)) => {
            body.push(zone::KEY);
            body.extend(key.as_bytes());
        }
    }
    Some(body)
}

/// `Some(None)` when there is none.
fn offset(text: &mut Text<'_>) -> Option<Option<i64>> {
    let sign = if text.mark("+") {
        1
    } else if text.mark("-") {
        -1
    } else {
        return Some(None);
    };
    let hours = i64::from(text.small()?);
    let minutes = i64::from(text.mark(":").then(|| text.small())??);
    let mut us = (hours * 60 + minutes) * 60_000_000;
    if text.mark(":") {
        us += i64::from(text.small()?) * 1_000_000;
        us += i64::from(text.mark(".").then(|| text.digits(6))??);
    }
    Some(Some(sign * us))
}
