//! Bytes in and out of the metadata: LEB128 and little-endian, strict when reading.

use super::MetadataError;

pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0x7f);
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// A cursor that refuses instead of reading past the end.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, MetadataError> {
        let (first, rest) = self
            .0
            .split_first()
            .ok_or(MetadataError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// A `u64` in eight bytes, little-endian.
    pub(super) fn fixed(&mut self) -> Result<u64, MetadataError> {
        let (first, rest) = self
            .0
            .split_first_chunk::<8>()
            .ok_or(MetadataError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*first))
    }

    /// A `u64` in LEB128, in its shortest form.
    pub(super) fn varint(&mut self) -> Result<u64, MetadataError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return Err(MetadataError::Malformed("a number is over 64 bits"));
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(MetadataError::Malformed("a number is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(MetadataError::Malformed("a number is over 64 bits"))
    }

    /// A count of items of at least `item_bytes` each, all of which must still be there.
    pub(super) fn count(&mut self, item_bytes: usize) -> Result<usize, MetadataError> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > self.0.len() / item_bytes {
            return Err(MetadataError::Malformed("it counts more than it holds"));
        }
        Ok(count)
    }

    pub(super) const fn end(self) -> Result<(), MetadataError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(MetadataError::Malformed("something stands behind its end"))
        }
    }
}
