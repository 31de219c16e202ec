//! Reading and writing the bytes of rows and checkpoint sections: little-endian, fixed widths, lengths as `u32`.
//!
//! A [`Reader`] never trusts a length: it refuses what runs past the end and allocates only for bytes that are there.

use bytes::Bytes;

/// Bytes that are not what their place requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside a value.
    #[error("{wanted} bytes wanted where {left} are left")]
    Truncated {
        /// Bytes that the value needs.
        wanted: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// A value that can not stand there.
    #[error("{0}")]
    Invalid(&'static str),
    /// More bytes follow than belong to the value.
    #[error("{0} bytes too many")]
    TooLong(usize),
}

/// Appends values to a buffer.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what was written and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// What was written.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// What was written, as a vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }

    /// The buffer itself, for encoders that append to a vector.
    pub fn as_mut_vec(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.bytes.push(u8::from(value));
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Four bytes: the bits of the number.
    pub fn f32(&mut self, value: f32) {
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    /// A count of what follows. Panics beyond `u32`, which no bounded queue of the state reaches.
    pub fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("a count of the state exceeds 32 bits"));
    }

    /// A length, then the bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.bytes.extend_from_slice(value);
    }

    /// A length, then bytes that `write` appends.
    pub fn nested(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.u32(0);
        write(self);
        let len = u32::try_from(self.bytes.len() - at - 4).expect("a nested value exceeds 32 bits");
        self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
}

/// Takes values from a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the beginning.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Bytes that were not read.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    /// The next `wanted` bytes.
    pub fn raw(&mut self, wanted: usize) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.bytes.split_at_checked(wanted).ok_or(CodecError::Truncated { wanted, left: self.bytes.len() })?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        Ok(self.raw(N)?.try_into().expect("as many bytes as asked for"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Invalid("a flag is neither 0 nor 1")),
        }
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number that is neither infinite nor NaN: the state holds no others.
    pub fn f32(&mut self) -> Result<f32, CodecError> {
        let value = f32::from_bits(self.u32()?);
        if value.is_finite() { Ok(value) } else { Err(CodecError::Invalid("a number of the state is not finite")) }
    }

    /// A count of values that take at least `each_bytes` each; refused when they can not all be there.
    pub fn count(&mut self, each_bytes: usize) -> Result<usize, CodecError> {
        let count = self.u32()? as usize;
        let wanted = count.saturating_mul(each_bytes.max(1));
        if wanted > self.bytes.len() { Err(CodecError::Truncated { wanted, left: self.bytes.len() }) } else { Ok(count) }
    }

    /// A length, then that many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let len = self.count(1)?;
        self.raw(len)
    }

    /// The same, copied.
    pub fn owned(&mut self) -> Result<Bytes, CodecError> {
        self.bytes().map(Bytes::copy_from_slice)
    }

    /// The same, as text.
    pub fn text(&mut self) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CodecError::Invalid("a text is not UTF-8"))
    }

    /// Refuses bytes that nobody read.
    pub fn finish(self) -> Result<(), CodecError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(CodecError::TooLong(self.bytes.len())) }
    }
}

/// A value of the state that is stored, hashed and restored by the same bytes.
pub trait Row: Clone + Send + Sync + 'static {
    /// Appends the row. Equal rows give equal bytes.
    fn put(&self, out: &mut Writer);
    /// Reads what [`Row::put`] wrote.
    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError>;
    /// The row came to a region whose clock is that much ahead of the one that it was in: what is a moment in it is moved as much.
    fn shift_ms(&mut self, _later_ms: i64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        let mut out = Writer::new();
        out.u8(1);
        out.bool(true);
        out.u16(2);
        out.u32(3);
        out.u64(4);
        out.f32(-5.5);
        out.bytes(b"six");
        out.nested(|out| out.u16(7));
        let mut input = Reader::new(out.as_slice());
        assert_eq!((input.u8(), input.bool(), input.u16()), (Ok(1), Ok(true), Ok(2)));
        assert_eq!((input.u32(), input.u64(), input.f32()), (Ok(3), Ok(4), Ok(-5.5)));
        assert_eq!((input.text(), input.bytes()), (Ok("six"), Ok(&[7, 0][..])));
        input.finish().unwrap();
    }

    #[test]
    fn lengths_are_not_trusted() {
        assert_eq!(Reader::new(&[255, 255, 255, 255, 0]).bytes(), Err(CodecError::Truncated { wanted: 0xffff_ffff, left: 1 }));
        assert!(Reader::new(&[2, 0, 0, 0, 0, 0, 0]).count(8).is_err());
        assert!(Reader::new(&f32::NAN.to_le_bytes()).f32().is_err());
        assert!(Reader::new(&[2]).bool().is_err());
        assert_eq!(Reader::new(&[2]).finish(), Err(CodecError::TooLong(1)));
    }
}
