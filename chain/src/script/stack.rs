//! The stack. Elements never change once pushed, so they point into the scripts and witnesses they come from; only
//! hashes and numbers are held in place. Nothing is copied or allocated for an element.

use super::error::ScriptError;

/// A value on the stack.
#[derive(Clone, Copy, Debug)]
pub enum Element<'a> {
    /// Bytes of a script or a witness.
    Borrowed(&'a [u8]),
    /// A computed value: a hash, a number or a truth value.
    Owned(u8, [u8; 32]),
}

impl<'a> Element<'a> {
    /// A computed value of at most 32 bytes.
    pub fn owned(value: &[u8]) -> Element<'a> {
        let mut bytes = [0; 32];
        bytes[..value.len()].copy_from_slice(value);
        Element::Owned(value.len() as u8, bytes)
    }

    /// The outcome of a test: 1, or nothing.
    pub fn truth(value: bool) -> Element<'a> {
        if value { Element::Borrowed(&[1]) } else { Element::Borrowed(&[]) }
    }

    /// Whether it counts as true: any byte is set, other than the sign of a negative zero.
    pub fn is_true(&self) -> bool {
        self.split_last().is_some_and(|(last, rest)| last & 0x7f != 0 || rest.iter().any(|byte| *byte != 0))
    }
}

impl std::ops::Deref for Element<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Element::Borrowed(bytes) => bytes,
            Element::Owned(length, bytes) => &bytes[..usize::from(*length)],
        }
    }
}

/// Elements of which the last is the top. Depths count from the top: 1 is the top itself.
#[derive(Clone, Debug, Default)]
pub struct Stack<'a>(Vec<Element<'a>>);

impl<'a> Stack<'a> {
    /// An empty stack with room for what common scripts need.
    pub fn new() -> Stack<'a> {
        Stack(Vec::with_capacity(8))
    }

    /// How many elements it holds.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Fails unless it holds at least `count` elements.
    pub fn need(&self, count: usize) -> Result<(), ScriptError> {
        if self.0.len() < count { Err(ScriptError::InvalidStackOperation) } else { Ok(()) }
    }

    /// Puts an element on top.
    pub fn push(&mut self, element: Element<'a>) {
        self.0.push(element);
    }

    /// Takes the top.
    pub fn pop(&mut self) -> Result<Element<'a>, ScriptError> {
        self.0.pop().ok_or(ScriptError::InvalidStackOperation)
    }

    /// The element at `depth`.
    pub fn peek(&self, depth: usize) -> Result<Element<'a>, ScriptError> {
        Ok(self.0[self.index(depth)?])
    }

    /// Drops the upper `count` elements.
    pub fn drop(&mut self, count: usize) -> Result<(), ScriptError> {
        let kept = self.0.len().checked_sub(count).ok_or(ScriptError::InvalidStackOperation)?;
        self.0.truncate(kept);
        Ok(())
    }

    /// Copies the run of `count` elements whose lowest lies at `depth` onto the top.
    pub fn copy(&mut self, depth: usize, count: usize) -> Result<(), ScriptError> {
        let start = self.index(depth)?;
        self.0.extend_from_within(start..start + count);
        Ok(())
    }

    /// Moves the lowest `count` of the upper `depth` elements onto the top.
    pub fn roll(&mut self, depth: usize, count: usize) -> Result<(), ScriptError> {
        let start = self.index(depth)?;
        self.0[start..].rotate_left(count);
        Ok(())
    }

    /// Puts an element below the upper `depth` elements.
    pub fn insert(&mut self, depth: usize, element: Element<'a>) -> Result<(), ScriptError> {
        let at = self.index(depth)?;
        self.0.insert(at, element);
        Ok(())
    }

    /// Keeps the lowest element alone.
    pub fn keep_one(&mut self) {
        self.0.truncate(1);
    }

    fn index(&self, depth: usize) -> Result<usize, ScriptError> {
        self.0.len().checked_sub(depth).ok_or(ScriptError::InvalidStackOperation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_of_either_sign_is_false() {
        for (bytes, truth) in
            [(&[][..], false), (&[0, 0], false), (&[0, 0x80], false), (&[0x80, 0], true), (&[0x81], true)]
        {
            assert_eq!(Element::Borrowed(bytes).is_true(), truth, "{bytes:?}");
        }
    }

    #[test]
    fn rolling_moves_the_lowest_to_the_top() {
        let mut stack = Stack::new();
        for value in [&[1][..], &[2], &[3], &[4]] {
            stack.push(Element::Borrowed(value));
        }
        stack.roll(3, 1).expect("four elements");
        stack.copy(4, 2).expect("four elements");
        let order: Vec<u8> = stack.0.iter().map(|element| element[0]).collect();
        assert_eq!(order, [1, 3, 4, 2, 1, 3]);
        assert_eq!(stack.roll(7, 1), Err(ScriptError::InvalidStackOperation));
    }
}
