//! What is done to payloads on their way to a store, and undone when they come back.
//!
//! The engine sees plain payloads only. Whoever hands payloads to a store, or takes them in from one,
//! does it through [`AtRest`]: one function for each direction, `seal` and `open`. What was done stands
//! in each payload's header, so what was written under one setting is read under any other.
//!
//! On the way out: a value becomes JSON text if that is asked for, is compressed if that makes it
//! smaller, is encrypted, and goes through a step of the user's own. Each of these may be missing.
//!
//! Promises that a payload comes back as it was or is refused, with a sentence that names the key and
//! the place and shows neither key nor payload; that no lock is held while Python is called; and that a
//! pickle is never read unless it was asked for. A refusal is one of two kinds: a matter of how this
//! program is set up (no key, a wrong one, no leave to read pickles), so that somebody else can read it,
//! or damage, which nobody can mend. Refuses to know what flows, steps and stores are.

mod cipher;
mod clock_text;
mod compression;
mod from_json;
mod place;
mod to_json;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sayiir_core::envelope::{self, Bytes, codec, flag, kind};
use sayiir_core::state::{Commit, Next};
use sayiir_store::contract::item_id;

use crate::{error, payload};
use cipher::{Encrypted, Key};
pub use place::{Place, Role, bound_item};

/// The longest JSON text that is written; larger values are not for reading in SQL, and stay
/// MessagePack.
pub const MAX_JSON_BYTES: usize = 16 << 20;

/// How many keys are kept at hand.
const MAX_KEYS: usize = 64;

/// A step of the user's own: its number, and how it encodes and decodes.
struct Own {
    id: u8,
    encode: Py<PyAny>,
    decode: Py<PyAny>,
}

/// See the module's opening.
#[pyclass(frozen, module = "sayiir._core")]
pub struct AtRest {
    json: bool,
    /// Whether what cannot be carried is pickled, and whether pickles are read.
    pickles: (bool, bool),
    compress_above: Option<usize>,
    keys: Option<Py<PyAny>>,
    own: Option<Own>,
    /// By their ids.
    known: Mutex<HashMap<String, Arc<Key>>>,
}

/// Why a payload is not to be had.
pub enum Refusal {
    /// This program is not set up for it.
    Unprepared(PyErr),
    /// It is damaged, or not what belongs here.
    Damaged(String),
}

impl From<PyErr> for Refusal {
    fn from(failure: PyErr) -> Self {
        Self::Unprepared(failure)
    }
}

/// Whether nothing was done to it that has to be undone.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.len() < envelope::HEADER
        || (bytes[7] == 0 && matches!(bytes[6], codec::NONE | codec::MSGPACK | codec::UNREADABLE))
}

/// What stands in the engine for a payload that could not be read: whoever wants its value gets to know
/// why there is none.
fn unreadable(reason: &str) -> Bytes {
    envelope::sealed(kind::VALUE, codec::UNREADABLE, reason.as_bytes())
}

/// Opens what came from a store, for the engine: damage is passed on in place of the value.
pub fn take_in(
    py: Python<'_>,
    settings: Option<&AtRest>,
    bytes: Bytes,
    place: &Place<'_>,
) -> PyResult<Bytes> {
    if is_plain(&bytes) {
        return Ok(bytes);
    }
    match open(py, settings, &bytes, place) {
        Ok(plain) => Ok(plain.unwrap_or(bytes)),
        Err(Refusal::Unprepared(failure)) => Err(failure),
        Err(Refusal::Damaged(reason)) => Ok(unreadable(&reason)),
    }
}

/// The one way in: the plain payload, `None` when it is plain already.
pub fn open(
    py: Python<'_>,
    settings: Option<&AtRest>,
    bytes: &[u8],
    place: &Place<'_>,
) -> Result<Option<Bytes>, Refusal> {
    if is_plain(bytes) {
        return Ok(None);
    }
    let damaged = |reason: String| Refusal::Damaged(format!("{place} cannot be read: {reason}"));
    let (view, flags) = envelope::open_stored(bytes).map_err(|e| damaged(e.to_string()))?;
    let header = [envelope::VERSION, view.kind, view.codec, flags];
    if flags & flag::OWN != 0 {
        let inner = own_opened(py, settings, view.body, place)?;
        if inner.get(7).is_some_and(|flags| flags & flag::OWN != 0) {
            return Err(damaged("it went through two steps of a codec's own".into()));
        }
        let opened = open(py, settings, &inner, place)?;
        return Ok(Some(opened.unwrap_or_else(|| inner.into())));
    }
    let mut body = std::borrow::Cow::Borrowed(view.body);
    if flags & flag::ENCRYPTED != 0 {
        let encrypted = Encrypted::of(&body)
            .ok_or_else(|| damaged("what is encrypted in it is cut off".into()))?;
        let key = key_of(py, settings, &encrypted, place)?;
        let plain = encrypted.decrypt(&key, header, place).ok_or_else(|| {
            damaged(format!(
                "it does not open with key '{}', so it was changed, or copied from another instance \
                 or step",
                encrypted.key_id
            ))
        })?;
        body = plain.into();
    }
    if flags & flag::COMPRESSED != 0 {
        let plain = compression::decompress(&body)
            .map_err(|reason| damaged(format!("it is damaged: {reason}")))?;
        body = plain.into();
    }
    let mut codec = view.codec;
    if codec == codec::JSON {
        let found = from_json::from_json(&body).map_err(damaged)?;
        codec = if found.pickled {
            codec::PICKLED
        } else {
            codec::MSGPACK
        };
        body = found.body.into();
    }
    if codec == codec::PICKLED && !settings.is_some_and(|settings| settings.pickles.1) {
        return Err(Refusal::Unprepared(error::decode_text(
            py,
            format!("{place} cannot be read here: {}", crate::value::NO_PICKLES),
        )));
    }
    Ok(Some(envelope::sealed(view.kind, codec, &body)))
}

fn own_opened(
    py: Python<'_>,
    settings: Option<&AtRest>,
    body: &[u8],
    place: &Place<'_>,
) -> Result<Vec<u8>, Refusal> {
    let Some((id, body)) = body.split_first() else {
        return Err(Refusal::Damaged(format!(
            "{place} cannot be read: it is empty"
        )));
    };
    let own = settings.and_then(|settings| settings.own.as_ref());
    let Some(own) = own.filter(|own| own.id == *id) else {
        return Err(Refusal::Unprepared(error::decode_text(
            py,
            format!(
                "{place} cannot be read here: it went through a codec of your own with the id {id}; \
                 open the backend with that one"
            ),
        )));
    };
    let decoded = own
        .decode
        .bind(py)
        .call1((
            PyBytes::new(py, body),
            place.bound_id(),
            place.role.word(),
            place.name,
        ))
        .and_then(|decoded| decoded.extract::<Vec<u8>>())
        .map_err(|failure| {
            because(
                py,
                error::decode_text(
                    py,
                    format!(
                        "{place} cannot be read: decode() of the codec with the id {id} raised {}",
                        type_of(py, &failure)
                    ),
                ),
                failure,
            )
        })?;
    if decoded.starts_with(&envelope::MAGIC) {
        return Ok(decoded);
    }
    Err(Refusal::Damaged(format!(
        "{place} cannot be read: decode() of the codec with the id {id} did not give back what its \
         encode() was given"
    )))
}

/// The key that something was encrypted with.
fn key_of(
    py: Python<'_>,
    settings: Option<&AtRest>,
    encrypted: &Encrypted<'_>,
    place: &Place<'_>,
) -> Result<Arc<Key>, Refusal> {
    let id = encrypted.key_id;
    let Some((settings, keys)) = settings.and_then(|s| Some((s, s.keys.as_ref()?))) else {
        return Err(Refusal::Unprepared(error::decode_text(
            py,
            format!(
                "{place} cannot be read here: it is encrypted with key '{id}'; open the backend \
                 with codec=Codec(keys=…)"
            ),
        )));
    };
    let at_hand = settings.lock().get(id).map(Arc::clone);
    let key = match at_hand.filter(|key| encrypted.is_of(key)) {
        Some(key) => key,
        None => {
            let given = settings.asked(py, keys, Some(id)).map_err(|failure| {
                because(
                    py,
                    error::decode_text(
                        py,
                        format!(
                            "{place} cannot be read here: it is encrypted with key '{id}', and keys= raised \
                             {} when it was asked for that one; give it that key as well",
                            type_of(py, &failure)
                        ),
                    ),
                    failure,
                )
            })?;
            if given.id() != id {
                return Err(Refusal::Unprepared(error::decode_text(
                    py,
                    format!(
                        "{place} cannot be read here: it is encrypted with key '{id}', and keys= gave \
                         another when it was asked for that one"
                    ),
                )));
            }
            given
        }
    };
    if encrypted.is_of(&key) {
        return Ok(key);
    }
    Err(Refusal::Unprepared(error::decode_text(
        py,
        format!(
            "{place} cannot be read here: the key that goes by the id '{id}' here is not the one \
             that it was encrypted with; give each key an id of its own, for ever"
        ),
    )))
}

fn type_of(py: Python<'_>, failure: &PyErr) -> String {
    failure
        .get_type(py)
        .name()
        .map_or_else(|_| "an exception".to_owned(), |name| name.to_string())
}

/// Our failure with its cause; an interrupt is nobody's failure, and goes on as it is.
fn because(py: Python<'_>, failure: PyErr, cause: PyErr) -> PyErr {
    if !cause.is_instance_of::<PyException>(py) {
        return cause;
    }
    failure.set_cause(py, Some(cause));
    failure
}

impl AtRest {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Key>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether values that cannot be carried are pickled.
    pub fn writes_pickles(&self) -> bool {
        self.pickles.0
    }

    /// Whether pickles are read.
    pub fn reads_pickles(&self) -> bool {
        self.pickles.1
    }

    /// Asks for the key with this id, or for the current one.
    fn asked(&self, py: Python<'_>, keys: &Py<PyAny>, id: Option<&str>) -> PyResult<Arc<Key>> {
        let (given, bytes): (String, Vec<u8>) = keys.bind(py).call1((id,))?.extract()?;
        if given.is_empty() || given.len() > cipher::MAX_KEY_ID_BYTES {
            return Err(PyValueError::new_err(format!(
                "the id of a key must be 1 to {} bytes, got {}",
                cipher::MAX_KEY_ID_BYTES,
                given.len()
            )));
        }
        let key = Key::new(&given, &bytes).ok_or_else(|| {
            PyValueError::new_err(format!(
                "key '{given}' must be {} bytes, got {}",
                cipher::KEY_BYTES,
                bytes.len()
            ))
        })?;
        let key = Arc::new(key);
        let mut known = self.lock();
        if known.len() >= MAX_KEYS {
            known.clear();
        }
        known.insert(given, Arc::clone(&key));
        Ok(key)
    }

    /// The key that is written with now.
    pub fn current(&self, py: Python<'_>) -> PyResult<Option<Arc<Key>>> {
        let Some(keys) = &self.keys else {
            return Ok(None);
        };
        self.asked(py, keys, None).map(Some).map_err(|failure| {
            because(
                py,
                error::encode_text(
                    py,
                    format!(
                        "nothing was stored: keys= raised {} when it was asked for the current key",
                        type_of(py, &failure)
                    ),
                ),
                failure,
            )
        })
    }

    /// The one way out. `key` is the current one.
    pub fn seal(
        &self,
        py: Python<'_>,
        key: Option<&Key>,
        plain: &Bytes,
        place: &Place<'_>,
    ) -> PyResult<Bytes> {
        let view = envelope::open_own(plain).map_err(|e| error::core(py, &e))?;
        let (mut kind, mut codec) = (view.kind, view.codec);
        let mut body = std::borrow::Cow::Borrowed(view.body);
        if self.json
            && let Some(text) = to_json::to_json(kind, codec, &body)
        {
            (kind, codec, body) = (kind::VALUE, codec::JSON, text.into());
        }
        let mut flags = 0;
        if self.compress_above.is_some_and(|above| body.len() > above)
            && let Some(smaller) = compression::compress(&body)
        {
            body = smaller.into();
            flags |= flag::COMPRESSED;
        }
        let mut sealed = if key.is_none() && flags == 0 && codec == view.codec {
            Bytes::clone(plain)
        } else {
            flags |= if key.is_some() { flag::ENCRYPTED } else { 0 };
            let mut out = Vec::with_capacity(body.len() + 128);
            let start = envelope::begin_flagged(&mut out, kind, codec, flags);
            match key {
                None => out.extend_from_slice(&body),
                Some(key) => {
                    let header = [envelope::VERSION, kind, codec, flags];
                    key.encrypt(header, place, &body, &mut out).ok_or_else(|| {
                        error::encode_text(
                            py,
                            format!("{place} was not stored: this machine gives no randomness"),
                        )
                    })?;
                }
            }
            envelope::seal(&mut out, start);
            out.into()
        };
        if let Some(own) = &self.own {
            let encoded = own
                .encode
                .bind(py)
                .call1((
                    PyBytes::new(py, &sealed),
                    place.bound_id(),
                    place.role.word(),
                    place.name,
                ))
                .and_then(|encoded| encoded.extract::<Vec<u8>>())
                .map_err(|failure| {
                    let text = format!(
                        "{place} was not stored: encode() of the codec with the id {} raised {}",
                        own.id,
                        type_of(py, &failure)
                    );
                    because(py, error::encode_text(py, text), failure)
                })?;
            let mut out = Vec::with_capacity(encoded.len() + 16);
            let start = envelope::begin_flagged(&mut out, kind, codec, flag::OWN);
            out.push(own.id);
            out.extend(encoded);
            envelope::seal(&mut out, start);
            sealed = out.into();
        }
        Ok(sealed)
    }

    /// A checkpoint as it is stored. A result that a step also has stays the same bytes, unless it is
    /// encrypted.
    pub fn commit(
        &self,
        py: Python<'_>,
        id: &str,
        fence: u64,
        mut commit: Commit,
    ) -> PyResult<Commit> {
        let key = self.current(py)?;
        let seal = |plain: &Bytes, id: &str, role: Role, name: &str| {
            self.seal(py, key.as_deref(), plain, &Place { id, role, name })
        };
        for row in &mut commit.steps {
            if let Some(output) = &row.output {
                row.output = Some(seal(output, id, Role::Step, &row.path)?);
            }
        }
        if let Next::Completed(output) = &commit.next {
            commit.next = Next::Completed(seal(output, id, Role::Output, "")?);
        }
        let batch = commit.family.as_mut().and_then(|f| f.batch.as_mut());
        if let Some(batch) = batch {
            let group = batch.group;
            for (index, input) in (batch.first..).zip(&mut batch.inputs) {
                let item = item_id(id, fence, group, index);
                *input = seal(input, &item, Role::Input, "")?;
            }
        }
        Ok(commit)
    }
}

#[pymethods]
impl AtRest {
    #[new]
    #[pyo3(signature = (*, json, write_pickles, read_pickles, compress_above, keys, own))]
    fn new(
        json: bool,
        write_pickles: bool,
        read_pickles: bool,
        compress_above: Option<usize>,
        keys: Option<Py<PyAny>>,
        own: Option<(u8, Py<PyAny>, Py<PyAny>)>,
    ) -> Self {
        Self {
            json,
            pickles: (write_pickles, read_pickles),
            compress_above,
            keys,
            own: own.map(|(id, encode, decode)| Own { id, encode, decode }),
            known: Mutex::default(),
        }
    }

    /// A value as it is stored at this place.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        value: &Bound<'py, PyAny>,
        instance_id: &str,
        role: &str,
        name: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let plain =
            payload::seal(value, self.writes_pickles()).map_err(|f| error::encode(py, &f))?;
        let place = Place::named(instance_id, role, name)?;
        let key = self.current(py)?;
        Ok(PyBytes::new(
            py,
            &self.seal(py, key.as_deref(), &plain, &place)?,
        ))
    }

    /// The value of what is stored at this place.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
        instance_id: &str,
        role: &str,
        name: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let place = Place::named(instance_id, role, name)?;
        decode(py, Some(self), data.as_bytes(), &place)
    }

    /// Whether values that cannot be carried are pickled.
    #[getter]
    fn pickles(&self) -> bool {
        self.writes_pickles()
    }
}

/// The value of what is stored at a place.
pub fn decode<'py>(
    py: Python<'py>,
    settings: Option<&AtRest>,
    bytes: &[u8],
    place: &Place<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    let pickles = settings.is_some_and(AtRest::reads_pickles);
    match open(py, settings, bytes, place) {
        Ok(None) => payload::open(py, bytes, pickles),
        Ok(Some(plain)) => payload::open(py, &plain, pickles),
        Err(Refusal::Unprepared(failure)) => Err(failure),
        Err(Refusal::Damaged(reason)) => Err(error::decode_text(py, reason)),
    }
}

/// The value of what is stored, for those who do not say where, and who have no codec.
#[pyfunction]
pub fn decode_stored<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyBytes>,
    instance_id: &str,
    role: &str,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let place = Place::named(instance_id, role, name)?;
    decode(py, None, data.as_bytes(), &place)
}
