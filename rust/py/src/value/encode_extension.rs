//! The walk from a Python value to bytes: the types that MessagePack has no form for.
//!
//! Promises that each body is what the table in the module's documentation says. Refuses to know
//! the plain forms, which are in `encode`.

use pyo3::PyTypeInfo;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    IntoPyDict, PyBool, PyBytes, PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyDict,
    PyFrozenSet, PyInt, PyIterator, PySet, PyString, PyTime, PyTimeAccess, PyTuple, PyType,
    PyTzInfo, PyTzInfoAccess,
};

use super::classes::{self, Registered, uninterrupted};
use super::encode::{Encoder, Refusal, Step, changed, exactly, unknown};
use super::{MAX_PAYLOAD_BYTES, code, zone};

/// Room that is kept in front of a body whose length is not known yet: an ext 32 header.
const WIDEST_HEADER: usize = 6;

impl<'py> Encoder<'_, 'py> {
    /// Writes a value that has no form of its own, or refuses it.
    pub(super) fn extension(&mut self, obj: &Bound<'py, PyAny>) -> Step {
        if let Some(set) = exactly!(self, obj: PySet) {
            return self.members(code::SET, set, set.len());
        }
        if let Some(set) = exactly!(self, obj: PyFrozenSet) {
            return self.members(code::FROZENSET, set, set.len());
        }
        match classes::registered(self.py) {
            Some(known) if is_a(obj, &known.loop_result) => self.loop_result(obj),
            Some(known) if is_a(obj, &known.loop_dict) => self.loop_dict(obj, known),
            Some(known) if is_a(obj, &known.event_timeout) => self.event_timeout(obj),
            Some(known) if is_a(obj, &known.map_error) => self.map_error(obj),
            _ if self.leaf(obj)? => Ok(()),
            _ => self.shaped(obj),
        }
    }

    /// Writes the plain form of a value of a type that is not carried, or refuses it.
    #[inline(never)]
    fn shaped(&mut self, obj: &Bound<'py, PyAny>) -> Step {
        let plain = match classes::plain_form(obj) {
            Ok(Some(plain)) => plain,
            Ok(None) if self.pickles => return self.pickle(obj),
            Ok(None) => return Err(unknown(obj)),
            Err(failure) => return Err(unshaped(obj, &failure)),
        };
        self.shaped += 1;
        if plain.is_exact_instance_of::<PyDict>() || plain.is_exact_instance_of::<PyTuple>() {
            return self.value(&plain);
        }
        // What is no container that counts itself could be followed for ever.
        self.enter(obj, 0)?;
        self.value(&plain)?;
        self.leave();
        Ok(())
    }

    /// Writes the pickle of a value, for whoever asked for that.
    #[inline(never)]
    fn pickle(&mut self, obj: &Bound<'py, PyAny>) -> Step {
        let pickled = match uninterrupted(self.py, || classes::pickled(obj)) {
            Ok(pickled) => pickled,
            Err(failure) => return Err(unpickled(obj, &failure)),
        };
        self.weigh(obj, pickled.as_bytes().len())?;
        self.body(code::PICKLE, pickled.as_bytes());
        self.shaped += 1;
        self.pickled = true;
        Ok(())
    }

    /// Writes a value that holds no other one; false when it is of no type that is carried. It is
    /// apart from what holds others, so that the frames of a deep value stay small.
    #[inline(never)]
    fn leaf(&mut self, obj: &Bound<'py, PyAny>) -> Result<bool, Box<Refusal>> {
        if let Some(moment) = exactly!(self, obj: PyDateTime) {
            return self.datetime(moment).map(|()| true);
        }
        if let Some(day) = exactly!(self, obj: PyDate) {
            self.body(code::DATE, &date_body(day));
            return Ok(true);
        }
        if let Some(time) = exactly!(self, obj: PyTime) {
            let start = self.open();
            self.time_of_day(time);
            self.zone(time.get_tzinfo())?;
            self.close(code::TIME, start);
            return Ok(true);
        }
        if let Some(delta) = exactly!(self, obj: PyDelta) {
            let mut body = [0; 12];
            body[..4].copy_from_slice(&delta.get_days().to_be_bytes());
            body[4..8].copy_from_slice(&delta.get_seconds().to_be_bytes());
            body[8..].copy_from_slice(&delta.get_microseconds().to_be_bytes());
            self.body(code::TIMEDELTA, &body);
            return Ok(true);
        }
        let ty = obj.get_type();
        if classes::decimal(self.py).is_ok_and(|class| ty.is(class)) {
            return self.decimal(obj).map(|()| true);
        }
        if classes::uuid(self.py).is_ok_and(|class| ty.is(class)) {
            return self.uuid(obj).map(|()| true);
        }
        Ok(false)
    }

    pub(super) fn tuple(&mut self, tuple: &Bound<'py, PyTuple>) -> Step {
        self.enter(tuple, tuple.len())?;
        let start = self.open();
        self.array_header(tuple.len());
        for (index, item) in tuple.iter_borrowed().enumerate() {
            self.value(&item)
                .map_err(|refusal| refusal.at_index(index))?;
            self.weigh(&item, 0)?;
        }
        self.close(code::TUPLE, start);
        self.leave();
        Ok(())
    }

    fn members(&mut self, code: i8, set: &Bound<'py, PyAny>, len: usize) -> Step {
        self.enter(set, len)?;
        let shaped = self.shaped;
        let start = self.open();
        self.array_header(len);
        let mut written = 0;
        let mut members = set.try_iter().map_err(|_| changed(set))?;
        while let Some(member) = next_member(&mut members, set)? {
            self.value(&member)
                .map_err(|refusal| refusal.at("<member>"))?;
            self.weigh(&member, 0)?;
            written += 1;
        }
        self.close(code, start);
        self.leave();
        self.may_collide |= self.shaped != shaped;
        if written == len {
            Ok(())
        } else {
            Err(changed(set))
        }
    }

    /// Writes an integer outside the range of an `i64`.
    #[cold]
    pub(super) fn big_integer(&mut self, number: &Bound<'py, PyInt>) -> Step {
        if let Ok(value) = number.extract::<u64>() {
            self.tagged(0xcf, value.to_be_bytes());
            return Ok(());
        }
        let failed = || Refusal::new(number, "Python cannot turn it into bytes; memory is low");
        // Asked of Python, whose conversions to and from bytes are linear. One bit more than the
        // magnitude has room for the sign.
        let bits = number.call_method0(intern!(self.py, "bit_length"));
        let len = bits
            .and_then(|bits| bits.extract::<usize>())
            .map_err(|_| failed())?
            / 8
            + 1;
        self.weigh(number, len)?;
        let bytes = [("signed", true)].into_py_dict(self.py).and_then(|signed| {
            number.call_method(intern!(self.py, "to_bytes"), (len, "big"), Some(&signed))
        });
        let bytes = bytes.map_err(|_| failed())?;
        let bytes = bytes
            .cast_exact::<PyBytes>()
            .map_err(|_| failed())?
            .as_bytes();
        // −2^(8k−1) has a bit length of 8k, for which one byte is too many.
        let body = match bytes {
            [0xff, rest @ ..] if rest.first().is_some_and(|next| *next >= 0x80) => rest,
            body => body,
        };
        self.body(code::BIG_INT, body);
        Ok(())
    }

    fn datetime(&mut self, moment: &Bound<'py, PyDateTime>) -> Step {
        let start = self.open();
        self.out.extend_from_slice(&date_body(moment));
        self.time_of_day(moment);
        self.zone(moment.get_tzinfo())?;
        self.close(code::DATETIME, start);
        Ok(())
    }

    fn time_of_day(&mut self, time: &impl PyTimeAccess) {
        let [_, micro @ ..] = time.get_microsecond().to_be_bytes();
        self.out
            .extend_from_slice(&[time.get_hour(), time.get_minute(), time.get_second()]);
        self.out.extend_from_slice(&micro);
        self.out.push(u8::from(time.get_fold()));
    }

    fn zone(&mut self, tz: Option<Bound<'py, PyTzInfo>>) -> Step {
        let Some(tz) = tz else {
            self.out.push(zone::NONE);
            return Ok(());
        };
        let ty = tz.get_type();
        if classes::timezone(self.py).is_ok_and(|class| ty.is(class)) {
            return self.fixed_offset(&tz).ok_or_else(|| {
                Refusal::new(&tz, "its name holds a lone surrogate; give it a plain name")
                    .at(".tzinfo")
            });
        }
        if classes::zone_info(self.py).is_ok_and(|class| ty.is(class)) {
            let key = tz.getattr(intern!(self.py, "key")).ok();
            let key = key.as_ref().and_then(|key| key.extract::<&str>().ok());
            if let Some(key) = key.filter(|key| zone::is_key(key)) {
                self.out.push(zone::KEY);
                self.out.extend_from_slice(key.as_bytes());
                return Ok(());
            }
            return Err(Refusal::new(
                &tz,
                "it has no key by which it could be found again; build it as ZoneInfo('Area/City')",
            )
            .at(".tzinfo"));
        }
        Err(Refusal::new(
            &tz,
            "only datetime.timezone and zoneinfo.ZoneInfo are carried as time zones; convert with \
             .astimezone(ZoneInfo(...)) or .astimezone(timezone.utc)",
        )
        .at(".tzinfo"))
    }

    /// Writes a `datetime.timezone`; `None` when its name has no UTF-8 form.
    fn fixed_offset(&mut self, tz: &Bound<'py, PyTzInfo>) -> Option<()> {
        // The arguments that pickle would pass: the offset, and the name if one was given.
        let arguments = tz.call_method0(intern!(self.py, "__getinitargs__")).ok()?;
        let arguments = arguments.cast_exact::<PyTuple>().ok()?;
        let offset = arguments.get_item(0).ok()?;
        let offset = offset.cast_exact::<PyDelta>().ok()?;
        let seconds = i64::from(offset.get_days()) * 86_400 + i64::from(offset.get_seconds());
        let micros = seconds * 1_000_000 + i64::from(offset.get_microseconds());
        let name = arguments.get_item(1).ok();
        self.out.push(if name.is_some() {
            zone::NAMED_OFFSET
        } else {
            zone::OFFSET
        });
        self.out.extend_from_slice(&micros.to_be_bytes());
        if let Some(name) = name {
            self.out
                .extend_from_slice(name.extract::<&str>().ok()?.as_bytes());
        }
        Some(())
    }

    fn decimal(&mut self, obj: &Bound<'py, PyAny>) -> Step {
        let failed = |_| Refusal::new(obj, "Python could not write it as text; memory is low");
        let text = obj.str().map_err(failed)?;
        let text = text.to_str().map_err(failed)?;
        self.weigh(obj, text.len())?;
        let start = self.open();
        // A decimal context may ask for a small exponent sign; the bytes do not depend on it.
        self.out
            .extend(text.bytes().map(|b| if b == b'e' { b'E' } else { b }));
        self.close(code::DECIMAL, start);
        Ok(())
    }

    fn uuid(&mut self, obj: &Bound<'py, PyAny>) -> Step {
        let number = self.field(obj, intern!(self.py, "int"))?;
        let Ok(number) = number.extract::<u128>() else {
            return Err(wrong_field(&number, "int", "an integer of 128 bits"));
        };
        self.body(code::UUID, &number.to_be_bytes());
        Ok(())
    }

    fn loop_dict(&mut self, obj: &Bound<'py, PyAny>, known: &Registered) -> Step {
        let result = self.field(obj, intern!(self.py, "loop_result"))?;
        if !is_a(&result, &known.loop_result) {
            return Err(wrong_field(&result, "loop_result", "a LoopResult"));
        }
        self.loop_result(&result)
    }

    fn loop_result(&mut self, obj: &Bound<'py, PyAny>) -> Step {
        self.enter(obj, 2)?;
        let start = self.open();
        self.array_header(2);
        self.out.push(if self.is_done(obj)? { 0xc3 } else { 0xc2 });
        let value = self.field(obj, intern!(self.py, "value"))?;
        self.value(&value).map_err(|refusal| refusal.at(".value"))?;
        self.close(code::LOOP_RESULT, start);
        self.leave();
        Ok(())
    }

    fn is_done(&self, obj: &Bound<'py, PyAny>) -> Result<bool, Box<Refusal>> {
        let is_done = self.field(obj, intern!(self.py, "is_done"))?;
        match is_done.cast_exact::<PyBool>() {
            Ok(truth) => Ok(truth.is_true()),
            Err(_) => Err(wrong_field(&is_done, "is_done", "a bool")),
        }
    }

    fn event_timeout(&mut self, obj: &Bound<'py, PyAny>) -> Step {
        let start = self.open();
        self.array_header(1);
        self.text_field(obj, "name")?;
        self.close(code::EVENT_TIMEOUT, start);
        Ok(())
    }

    fn map_error(&mut self, obj: &Bound<'py, PyAny>) -> Step {
        let start = self.open();
        self.array_header(4);
        let index = self.field(obj, intern!(self.py, "index"))?;
        if !index.is_exact_instance_of::<PyInt>() {
            return Err(wrong_field(&index, "index", "an int"));
        }
        self.value(&index).map_err(|refusal| refusal.at(".index"))?;
        for name in ["error_type", "message", "path"] {
            self.text_field(obj, name)?;
        }
        self.close(code::MAP_ERROR, start);
        Ok(())
    }

    fn text_field(&mut self, obj: &Bound<'py, PyAny>, name: &str) -> Step {
        let value = self.field(obj, &PyString::intern(self.py, name))?;
        match value.cast_exact::<PyString>() {
            Ok(text) => self
                .text(text)
                .map_err(|refusal| refusal.at(&format!(".{name}"))),
            Err(_) => Err(wrong_field(&value, name, "a str")),
        }
    }

    fn field(
        &self,
        obj: &Bound<'py, PyAny>,
        name: &Bound<'py, PyString>,
    ) -> Result<Bound<'py, PyAny>, Box<Refusal>> {
        uninterrupted(self.py, || obj.getattr(name)).map_err(|_| {
            Refusal::new(
                obj,
                format!("its attribute {name} cannot be read; build it with its constructor"),
            )
        })
    }

    /// Keeps room for the header of a body that is still to be written.
    fn open(&mut self) -> usize {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; WIDEST_HEADER]);
        start
    }

    /// Writes the header of the body that began after `start`. Only a body of up to 255 bytes is
    /// moved to close the gap, so nesting does not copy large bodies again and again.
    fn close(&mut self, code: i8, start: usize) {
        let len = self.out.len() - start - WIDEST_HEADER;
        let (header, used) = extension_header(code, len);
        let gap = WIDEST_HEADER - used;
        self.out[start..start + used].copy_from_slice(&header[..used]);
        if gap > 0 {
            self.out.copy_within(start + WIDEST_HEADER.., start + used);
            self.out.truncate(start + used + len);
        }
    }

    /// Writes a body that is already there.
    fn body(&mut self, code: i8, body: &[u8]) {
        let (header, used) = extension_header(code, body.len());
        self.out.extend_from_slice(&header[..used]);
        self.out.extend_from_slice(body);
    }
}

/// The next member of a set. The iteration fails for one reason only: the set has another size now.
#[inline(never)]
fn next_member<'py>(
    members: &mut Bound<'py, PyIterator>,
    set: &Bound<'py, PyAny>,
) -> Result<Option<Bound<'py, PyAny>>, Box<Refusal>> {
    members.next().transpose().map_err(|_| changed(set))
}

/// The header of an extension and how many bytes of it count.
fn extension_header(code: i8, len: usize) -> ([u8; WIDEST_HEADER], usize) {
    debug_assert!(len <= 2 * MAX_PAYLOAD_BYTES);
    let code = code as u8;
    let fixed = match len {
        1 => 0xd4,
        2 => 0xd5,
        4 => 0xd6,
        8 => 0xd7,
        16 => 0xd8,
        0..=0xff => return ([0xc7, len as u8, code, 0, 0, 0], 3),
        _ => {
            let [a, b, c, d] = (len as u32).to_be_bytes();
            return ([0xc9, a, b, c, d, code], 6);
        }
    };
    ([fixed, code, 0, 0, 0, 0], 2)
}

fn date_body(day: &impl PyDateAccess) -> [u8; 4] {
    let [.., high, low] = day.get_year().to_be_bytes();
    [high, low, day.get_month(), day.get_day()]
}

fn is_a(obj: &Bound<'_, PyAny>, class: &Py<PyType>) -> bool {
    obj.get_type_ptr().cast() == class.as_ptr()
}

/// What an exception is and says.
fn told(obj: &Bound<'_, PyAny>, failure: &PyErr) -> String {
    let class = failure.get_type(obj.py());
    let class = class
        .name()
        .map_or_else(|_| "an exception".to_owned(), |name| name.to_string());
    let text = failure.value(obj.py()).str();
    let text = text.map_or_else(|_| "(without a text)".to_owned(), |text| text.to_string());
    format!("{class}: {text}")
}

#[cold]
fn unshaped(obj: &Bound<'_, PyAny>, failure: &PyErr) -> Box<Refusal> {
    let told = told(obj, failure);
    Refusal::new(obj, format!("asked for its plain form it raised {told}"))
}

#[cold]
fn unpickled(obj: &Bound<'_, PyAny>, failure: &PyErr) -> Box<Refusal> {
    let told = told(obj, failure);
    Refusal::new(
        obj,
        format!("values of this type are not carried, and pickle refuses it too ({told})"),
    )
}

#[cold]
fn wrong_field(value: &Bound<'_, PyAny>, name: &str, expected: &str) -> Box<Refusal> {
    Refusal::new(
        value,
        format!("this attribute must be {expected}; build the object with its constructor"),
    )
    .at(&format!(".{name}"))
}
