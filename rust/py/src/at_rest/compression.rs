//! Zstandard around a body: its length as *uint*, then one frame.
//!
//! The length is what the frame must give, and is never trusted for memory: what comes out is taken in
//! pieces, and no more than was announced. Refuses to know what a body is.

use std::io::Read as _;

use sayiir_core::envelope::{Reader, put_uint};
use zstd::stream::read::Decoder;

use crate::value::MAX_PAYLOAD_BYTES;

const LEVEL: i32 = 3;
/// A frame that wants a larger window than ours ever do (2 MiB) is refused.
const WINDOW_LOG: u32 = 22;
const PIECE: usize = 64 << 10;

/// The compressed body, if it is smaller.
pub fn compress(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > MAX_PAYLOAD_BYTES {
        return None;
    }
    let mut out = Vec::with_capacity(body.len() / 2 + 16);
    put_uint(&mut out, body.len() as u64);
    out.extend(zstd::bulk::compress(body, LEVEL).ok()?);
    (out.len() < body.len()).then_some(out)
}

/// The body behind a compressed one.
///
/// # Errors
/// A clause that says what is wrong.
pub fn decompress(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut reader = Reader::new(bytes);
    let len = reader.uint().map_err(|_| "its length is missing")?;
    if len > MAX_PAYLOAD_BYTES as u64 {
        return Err("it claims to be larger than a value may be");
    }
    let frame = &bytes[reader.position()..];
    let malformed = "it is no compressed value";
    let mut decoder = Decoder::with_buffer(frame)
        .map_err(|_| malformed)?
        .single_frame();
    decoder.window_log_max(WINDOW_LOG).map_err(|_| malformed)?;
    let mut out = Vec::new();
    // One byte more than announced tells a frame that goes on.
    let mut left = len as usize + 1;
    while left > 0 {
        let piece = left.min(PIECE);
        let before = out.len();
        out.resize(before + piece, 0);
        let count = decoder.read(&mut out[before..]).map_err(|_| malformed)?;
        out.truncate(before + count);
        left -= count;
        if count == 0 {
            break;
        }
    }
    if out.len() as u64 != len {
        return Err("its length is not the one that it claims");
    }
    if !decoder.finish().is_empty() {
        return Err("bytes follow it");
    }
    Ok(out)
}
