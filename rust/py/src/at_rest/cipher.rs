//! AES-256-GCM around a body, with the key's id in front of it.
//!
//! The body becomes: the key's id as *text*, four bytes by which a wrong key is told from damage, a
//! random nonce of 12 bytes, the ciphertext with its tag of 16 bytes. What it is bound to (the header,
//! the key's id, the place) is authenticated with it and not stored. Refuses to know where keys come
//! from, and never shows one.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use sayiir_core::envelope::{Reader, put_bytes};

use super::place::Place;

/// Length of a key.
pub const KEY_BYTES: usize = 32;
/// The longest id of a key.
pub const MAX_KEY_ID_BYTES: usize = 64;
const CHECK_BYTES: usize = 4;

/// A key that is ready for use.
pub struct Key {
    id: String,
    check: [u8; CHECK_BYTES],
    key: LessSafeKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Key {:?}>", self.id)
    }
}

impl Key {
    /// `None` unless the key has the right length.
    pub fn new(id: &str, bytes: &[u8]) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).ok()?;
        let mut context = Context::new(&SHA256);
        context.update(b"sayiir key check");
        context.update(bytes);
        let check = context.finish().as_ref().first_chunk().copied()?;
        Some(Self {
            id: id.to_owned(),
            check,
            key: LessSafeKey::new(key),
        })
    }

    /// The id it goes by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Appends the encrypted body; `None` when the machine has no randomness.
    pub fn encrypt(
        &self,
        header: [u8; 4],
        place: &Place<'_>,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        put_bytes(out, self.id.as_bytes());
        out.extend(self.check);
        out.extend(nonce);
        let start = out.len();
        out.extend_from_slice(body);
        let aad = Aad::from(bound(header, &self.id, place));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, aad, &mut out[start..])
            .ok()?;
        out.extend_from_slice(tag.as_ref());
        Some(())
    }
}

/// An encrypted body, taken apart.
pub struct Encrypted<'a> {
    /// Of the key that opens it.
    pub key_id: &'a str,
    check: [u8; CHECK_BYTES],
    nonce: [u8; NONCE_LEN],
    text: &'a [u8],
}

impl<'a> Encrypted<'a> {
    /// `None` when it is cut off or malformed.
    pub fn of(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let key_id = reader.text().ok()?;
        let fits = !key_id.is_empty() && key_id.len() <= MAX_KEY_ID_BYTES;
        let check = *reader.take(CHECK_BYTES).ok()?.first_chunk()?;
        let nonce = *reader.take(NONCE_LEN).ok()?.first_chunk()?;
        fits.then_some(Self {
            key_id,
            check,
            nonce,
            text: reader.take(reader.left()).ok()?,
        })
    }

    /// Whether it was encrypted with this very key, and not another one that goes by the same id.
    pub fn is_of(&self, key: &Key) -> bool {
        self.check == key.check
    }

    /// The body; `None` when it was changed, or belongs elsewhere.
    pub fn decrypt(&self, key: &Key, header: [u8; 4], place: &Place<'_>) -> Option<Vec<u8>> {
        let mut text = self.text.to_vec();
        let aad = Aad::from(bound(header, self.key_id, place));
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let len = key.key.open_in_place(nonce, aad, &mut text).ok()?.len();
        text.truncate(len);
        Some(text)
    }
}

/// What is authenticated beside the body.
fn bound(header: [u8; 4], key_id: &str, place: &Place<'_>) -> Vec<u8> {
    let mut aad = b"sayiir payload".to_vec();
    aad.extend(header);
    put_bytes(&mut aad, key_id.as_bytes());
    place.bind(&mut aad);
    aad
}
