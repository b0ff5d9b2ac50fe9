//! The way from bytes to a Python value: the types that MessagePack has no form for.
//!
//! Promises that a body which is not exactly what the table in the module's documentation says is a
//! failure, never a nearby value, and that nothing stored chooses what is imported or called.
//! Refuses to know the plain forms, which are in `decode`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    IntoPyDict, PyBool, PyDate, PyDateTime, PyDelta, PyFrozenSet, PyInt, PySet, PyString, PyTime,
    PyTuple, PyTzInfo,
};

use super::classes::{self, Registered, uninterrupted};
use super::decode::{Decoder, Outcome};
use super::{code, zone};

/// Said to those who did not ask for pickles.
pub const NO_PICKLES: &str = "it is a pickle, and reading one may run any code; if whoever can write \
     to this database may do that, open the backend with codec=Codec(pickle=\"read\")";
const SECONDS_PER_DAY: i64 = 86_400;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MAX_DAYS: i32 = 999_999_999;
/// Year, month and day.
const DATE_BYTES: usize = 4;
/// Hour, minute, second, microsecond and fold: what stands in front of the zone.
const TIME_BYTES: usize = 7;

impl<'py> Decoder<'_, 'py> {
    /// Reads the extension that began at `start` and has a body of `len` bytes.
    pub(super) fn extension(&mut self, start: usize, len: usize) -> Outcome<Bound<'py, PyAny>> {
        let [code] = self.array()?;
        match code as i8 {
            code @ (code::TUPLE | code::SET | code::FROZENSET) => {
                let first = self.body_items(start, len)?;
                self.sequence(start, first, code)
            }
            code @ (code::LOOP_RESULT | code::EVENT_TIMEOUT | code::MAP_ERROR) => {
                let first = self.body_items(start, len)?;
                self.record(start, first, code)
            }
            code => self.extension_leaf(start, len, code),
        }
    }

    /// Reads an extension that holds no other value. It is apart from what does, so that the frames
    /// of a deep value stay small.
    #[inline(never)]
    fn extension_leaf(&mut self, start: usize, len: usize, code: i8) -> Outcome<Bound<'py, PyAny>> {
        let (py, body) = (self.py, self.take(start, len)?);
        let (built, kind) = match code {
            code::BIG_INT => (big_integer(py, body), "big integer"),
            code::DATETIME => (datetime(py, body), "datetime"),
            code::DATE => (date(py, body), "date"),
            code::TIME => (time(py, body), "time"),
            code::TIMEDELTA => (timedelta(py, body), "timedelta"),
            code::DECIMAL => (decimal(py, body), "Decimal"),
            code::UUID => (uuid(py, body), "UUID"),
            code::PICKLE if self.pickles => (Some(classes::unpickled(py, body)), "pickle"),
            code::PICKLE => return Err(self.failure(start, NO_PICKLES)),
            _ => return Err(self.unknown_code(start, code)),
        };
        match built {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(self.unbuildable(start, kind, &error)),
            None => Err(self.failure(
                start,
                format!("the body of a {kind} is not one that sayiir writes"),
            )),
        }
    }

    /// Reads the array that fills the body of `len` bytes from here on. Its items are the last of
    /// `items` afterwards; the result is where they begin there.
    fn body_items(&mut self, start: usize, len: usize) -> Outcome<usize> {
        let body_end = self.pos.checked_add(len).filter(|&end| end <= self.end);
        let Some(body_end) = body_end else {
            self.take(start, len)?;
            return Err(self.failure(start, "an extension is cut off"));
        };
        // Inside, the body is all there is: what is owed outside is paid by the bytes behind it.
        let outside = (self.end, std::mem::take(&mut self.owed));
        self.end = body_end;
        let count = self.array_header(start)?;
        self.enter(start, count)?;
        let first = self.items.len();
        self.read_items(count)?;
        if self.pos != body_end {
            return Err(self.failure(self.pos, "an extension is longer than the array inside it"));
        }
        self.leave();
        (self.end, self.owed) = outside;
        Ok(first)
    }

    /// Makes a tuple or a set of the items from `first` on.
    #[inline(never)]
    fn sequence(&mut self, start: usize, first: usize, code: i8) -> Outcome<Bound<'py, PyAny>> {
        let py = self.py;
        let items = self.items.drain(first..);
        let count = items.len();
        let (built, built_len) = match code {
            code::TUPLE => (PyTuple::new(py, items).map(Bound::into_any), count),
            code::SET => match PySet::new(py, items) {
                Ok(set) => (Ok(set.as_any().clone()), set.len()),
                Err(error) => (Err(error), count),
            },
            _ => match PyFrozenSet::new(py, items) {
                Ok(set) => (Ok(set.as_any().clone()), set.len()),
                Err(error) => (Err(error), count),
            },
        };
        if built_len != count {
            return Err(self.failure(start, "two members of a set are equal"));
        }
        let kind = if code == code::TUPLE { "tuple" } else { "set" };
        built.map_err(|error| self.unbuildable(start, kind, &error))
    }

    /// Makes one of our own objects of the items from `first` on.
    #[inline(never)]
    fn record(&mut self, start: usize, first: usize, code: i8) -> Outcome<Bound<'py, PyAny>> {
        let fields = self.items.split_off(first);
        let Some(known) = classes::registered(self.py) else {
            return Err(self.unknown_code(start, code));
        };
        let (built, kind) = match code {
            code::LOOP_RESULT => (loop_result(self.py, known, &fields), "LoopResult"),
            code::EVENT_TIMEOUT => (event_timeout(self.py, known, &fields), "EventTimeout"),
            _ => (map_error(self.py, known, &fields), "MapError"),
        };
        match built {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(self.unbuildable(start, kind, &error)),
            None => Err(self.failure(start, format!("the fields of a {kind} are not its own"))),
        }
    }

    #[cold]
    fn unknown_code(&self, start: usize, code: i8) -> Box<super::DecodeFailure> {
        self.failure(
            start,
            format!(
                "the extension code {code} is not known; the value was written by a newer sayiir \
                 or by another program"
            ),
        )
    }

    /// Python refused to build a value from a body of the right shape. Only the type of its error
    /// is told: the text may hold a part of the payload.
    #[cold]
    fn unbuildable(&self, start: usize, kind: &str, error: &PyErr) -> Box<super::DecodeFailure> {
        let name = error.get_type(self.py).name().map(|name| name.to_string());
        let name = name.unwrap_or_else(|_| String::from("an error"));
        let hint = match name.as_str() {
            "ZoneInfoNotFoundError" => "; this machine does not know the time zone, install tzdata",
            _ => "",
        };
        self.failure(
            start,
            format!("Python builds no {kind} from it ({name}){hint}"),
        )
    }
}

/// A value of the right shape that Python may still refuse; `None` when the shape is wrong.
type Built<'py> = Option<PyResult<Bound<'py, PyAny>>>;

fn big_integer<'py>(py: Python<'py>, body: &[u8]) -> Built<'py> {
    let shortest = match body {
        [0x00, next, ..] => *next >= 0x80 && body.len() > 9,
        [0xff, next, ..] => *next < 0x80,
        _ => true,
    };
    if body.len() < 9 || !shortest {
        return None;
    }
    let build = || {
        let signed = [("signed", true)].into_py_dict(py)?;
        let from_bytes = intern!(py, "from_bytes");
        py.get_type::<PyInt>()
            .call_method(from_bytes, (body, "big"), Some(&signed))
    };
    Some(build())
}

fn date<'py>(py: Python<'py>, body: &[u8]) -> Built<'py> {
    let &[high, low, month, day] = body else {
        return None;
    };
    let year = i32::from(u16::from_be_bytes([high, low]));
    Some(PyDate::new(py, year, month, day).map(Bound::into_any))
}

fn datetime<'py>(py: Python<'py>, body: &[u8]) -> Built<'py> {
    let (&[high, low, month, day], rest) = body.split_first_chunk::<DATE_BYTES>()?;
    let (&[hour, minute, second, a, b, c, fold], rest) = rest.split_first_chunk::<TIME_BYTES>()?;
    let tz = match zone(py, rest)? {
        Ok(tz) => tz,
        Err(error) => return Some(Err(error)),
    };
    let year = i32::from(u16::from_be_bytes([high, low]));
    let micro = u32::from_be_bytes([0, a, b, c]);
    let (fold, tz) = (flag(fold)?, tz.as_ref());
    let moment =
        PyDateTime::new_with_fold(py, year, month, day, hour, minute, second, micro, tz, fold);
    Some(moment.map(Bound::into_any))
}

fn time<'py>(py: Python<'py>, body: &[u8]) -> Built<'py> {
    let (&[hour, minute, second, a, b, c, fold], rest) = body.split_first_chunk::<TIME_BYTES>()?;
    let tz = match zone(py, rest)? {
        Ok(tz) => tz,
        Err(error) => return Some(Err(error)),
    };
    let micro = u32::from_be_bytes([0, a, b, c]);
    let time = PyTime::new_with_fold(py, hour, minute, second, micro, tz.as_ref(), flag(fold)?);
    Some(time.map(Bound::into_any))
}

fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Reads a zone; `None` when the bytes are none.
fn zone<'py>(py: Python<'py>, body: &[u8]) -> Option<PyResult<Option<Bound<'py, PyTzInfo>>>> {
    let (&kind, rest) = body.split_first()?;
    match kind {
        zone::NONE => rest.is_empty().then_some(Ok(None)),
        zone::OFFSET | zone::NAMED_OFFSET => {
            let (micros, name) = rest.split_first_chunk()?;
            let micros = i64::from_be_bytes(*micros);
            let name = match kind {
                zone::NAMED_OFFSET => Some(std::str::from_utf8(name).ok()?),
                _ if name.is_empty() => None,
                _ => return None,
            };
            Some(fixed_offset(py, micros, name).map(Some))
        }
        zone::KEY => {
            let key = std::str::from_utf8(rest)
                .ok()
                .filter(|key| zone::is_key(key))?;
            let tz = uninterrupted(py, || classes::zone_info(py)?.call1((key,)));
            Some(tz.and_then(|tz| Ok(Some(tz.cast_into()?))))
        }
        _ => None,
    }
}

fn fixed_offset<'py>(
    py: Python<'py>,
    micros: i64,
    name: Option<&str>,
) -> PyResult<Bound<'py, PyTzInfo>> {
    // What exceeds a day is refused by Python; what exceeds these types becomes such an offset.
    let seconds = micros.div_euclid(MICROS_PER_SECOND);
    let days = i32::try_from(seconds.div_euclid(SECONDS_PER_DAY)).unwrap_or(MAX_DAYS);
    let seconds = seconds.rem_euclid(SECONDS_PER_DAY) as i32;
    let micros = micros.rem_euclid(MICROS_PER_SECOND) as i32;
    let offset = PyDelta::new(py, days, seconds, micros, false)?;
    let class = classes::timezone(py)?;
    let tz = match name {
        Some(name) => class.call1((offset, name))?,
        None => class.call1((offset,))?,
    };
    Ok(tz.cast_into()?)
}

fn timedelta<'py>(py: Python<'py>, body: &[u8]) -> Built<'py> {
    let body: &[u8; 12] = body.try_into().ok()?;
    let [days, seconds, micros] = [0, 4, 8]
        .map(|at| i32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]));
    let in_range = (-MAX_DAYS..=MAX_DAYS).contains(&days)
        && (0..86_400).contains(&seconds)
        && (0..1_000_000).contains(&micros);
    in_range.then(|| PyDelta::new(py, days, seconds, micros, false).map(Bound::into_any))
}

fn decimal<'py>(py: Python<'py>, body: &[u8]) -> Built<'py> {
    let text = std::str::from_utf8(body)
        .ok()
        .filter(|text| text.is_ascii())?;
    let value = match classes::decimal(py).and_then(|class| class.call1((text,))) {
        Ok(value) => value,
        Err(error) => return Some(Err(error)),
    };
    // The constructor also takes spaces, underscores and long-hand forms, and under some contexts
    // turns nonsense into NaN. Only the text that this number is written with is accepted.
    let canonical = match value.str() {
        Ok(canonical) => canonical,
        Err(error) => return Some(Err(error)),
    };
    let same = canonical.to_str().is_ok_and(|canonical| {
        canonical.len() == text.len()
            && canonical
                .bytes()
                .map(|b| if b == b'e' { b'E' } else { b })
                .eq(text.bytes())
    });
    same.then_some(Ok(value))
}

fn uuid<'py>(py: Python<'py>, body: &[u8]) -> Built<'py> {
    let number = u128::from_be_bytes(body.try_into().ok()?);
    let build = || {
        let number = [("int", number)].into_py_dict(py)?;
        uninterrupted(py, || classes::uuid(py)?.call((), Some(&number)))
    };
    Some(build())
}

fn loop_result<'py>(
    py: Python<'py>,
    known: &Registered,
    fields: &[Bound<'py, PyAny>],
) -> Built<'py> {
    let [is_done, value] = fields else {
        return None;
    };
    let is_done = is_done.cast_exact::<PyBool>().ok()?.is_true();
    let constructor = if is_done {
        intern!(py, "done")
    } else {
        intern!(py, "again")
    };
    Some(uninterrupted(py, || {
        known
            .loop_result
            .bind(py)
            .call_method1(constructor, (value,))
    }))
}

fn event_timeout<'py>(
    py: Python<'py>,
    known: &Registered,
    fields: &[Bound<'py, PyAny>],
) -> Built<'py> {
    let [name] = fields else {
        return None;
    };
    let name = name.cast_exact::<PyString>().ok()?;
    Some(uninterrupted(py, || {
        known.event_timeout.bind(py).call1((name,))
    }))
}

fn map_error<'py>(py: Python<'py>, known: &Registered, fields: &[Bound<'py, PyAny>]) -> Built<'py> {
    let [index, error_type, message, path] = fields else {
        return None;
    };
    let index = index.cast_exact::<PyInt>().ok()?;
    let error_type = error_type.cast_exact::<PyString>().ok()?;
    let message = message.cast_exact::<PyString>().ok()?;
    let path = path.cast_exact::<PyString>().ok()?;
    let fields = (index, error_type, message, path);
    Some(uninterrupted(py, || known.map_error.bind(py).call1(fields)))
}
