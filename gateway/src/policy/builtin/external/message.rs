//! The few messages of protobuf that are sent and read here (`envoy.service.auth.v3`), field by field.
//!
//! Invariant: what is read comes from a service of the mesh, and may be broken all the same: nothing is read beyond its end, and what
//! cannot be read is an error. Fields that are not known are passed over.

/// A message being written.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// A number; zero is left out.
    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
        self
    }

    /// A text or bytes; empty ones are left out.
    pub(super) fn bytes(self, field: u32, value: impl AsRef<[u8]>) -> Self {
        if value.as_ref().is_empty() { self } else { self.length_delimited(field, value.as_ref()) }
    }

    /// A message, written even where it is empty.
    pub(super) fn message(self, field: u32, inner: Writer) -> Self {
        self.length_delimited(field, &inner.0)
    }

    /// An entry of a map of texts.
    pub(super) fn entry(self, field: u32, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.message(field, Writer::default().bytes(1, key).bytes(2, value))
    }

    /// What was written.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn length_delimited(mut self, field: u32, value: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// That a message is broken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'m> {
    /// A number.
    Number(u64),
    /// A text, bytes or a message.
    Bytes(&'m [u8]),
    /// Of a kind that no field here has.
    Other,
}

impl<'m> Value<'m> {
    /// Its bytes.
    pub(super) fn as_bytes(self) -> Result<&'m [u8], Broken> {
        if let Value::Bytes(bytes) = self { Ok(bytes) } else { Err(Broken) }
    }

    /// Its text.
    pub(super) fn as_text(self) -> Result<&'m str, Broken> {
        std::str::from_utf8(self.as_bytes()?).map_err(|_| Broken)
    }

    /// Its number.
    pub(super) fn as_number(self) -> Result<u64, Broken> {
        if let Value::Number(number) = self { Ok(number) } else { Err(Broken) }
    }
}

/// The fields of a message, in the order in which they were written.
pub(super) struct Fields<'m>(&'m [u8]);

/// Reads a message.
pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

impl<'m> Fields<'m> {
    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Broken)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken)
    }

    fn take(&mut self, length: usize) -> Result<&'m [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Broken)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Value<'m>), Broken> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0).ok_or(Broken)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return Err(Broken),
        };
        Ok((number, value))
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u32, Value<'m>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Writer::default().number(1, 300).bytes(2, "text");
        let message = Writer::default().message(4, inner).entry(3, "k", "v").number(9, 0).finish();
        let read: Result<Vec<_>, _> = fields(&message).collect();
        let read = read.unwrap();
        assert_eq!(read.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [4, 3]);
        let inner: Vec<_> = fields(read[0].1.as_bytes().unwrap()).map(Result::unwrap).collect();
        assert_eq!(inner[0], (1, Value::Number(300)));
        assert_eq!(inner[1].1.as_text(), Ok("text"));
    }

    #[test]
    fn what_is_broken_is_said() {
        for broken in [&[0xff][..], &[0x0a, 5, 1], &[0x0b], &[0x00], &[0x08], &[0x09, 1]] {
            assert!(fields(broken).any(|field| field.is_err()), "{broken:?}");
        }
        assert!(fields(&[]).next().is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            assert!(fields(&bytes).count() <= bytes.len());
        }
    }
}
