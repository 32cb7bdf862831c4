//! Information elements: a type, an instance, a value (TS 29.274, 8.2.1).

/// Types of elements (TS 29.274, table 8.1-1).
pub(crate) mod kind {
    pub(crate) const IMSI: u8 = 1;
    pub(crate) const CAUSE: u8 = 2;
    pub(crate) const APN: u8 = 71;
    pub(crate) const AMBR: u8 = 72;
    pub(crate) const EBI: u8 = 73;
    pub(crate) const PAA: u8 = 79;
    pub(crate) const BEARER_QOS: u8 = 80;
    pub(crate) const RAT_TYPE: u8 = 82;
    pub(crate) const SERVING_NETWORK: u8 = 83;
    pub(crate) const ULI: u8 = 86;
    pub(crate) const F_TEID: u8 = 87;
    pub(crate) const BEARER_CONTEXT: u8 = 93;
    pub(crate) const PDN_TYPE: u8 = 99;
    pub(crate) const APN_RESTRICTION: u8 = 127;
    pub(crate) const SELECTION_MODE: u8 = 128;
    pub(crate) const RECOVERY: u8 = 3;
}

/// Bytes before a value.
const HEADER_BYTES: usize = 4;

/// An element as it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Which.
    pub kind: u8,
    /// Tells elements of one type in one message apart.
    pub instance: u8,
    /// What; of a grouped one its elements.
    pub value: Vec<u8>,
}

/// What is no list of elements.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedElement {
    /// It ends within an element.
    #[error("element {0} is cut off")]
    CutOff(u8),
    /// It ends within a header.
    #[error("{0} bytes are left that are no element")]
    Rest(usize),
}

impl Element {
    /// With instance 0.
    pub(crate) fn new(kind: u8, value: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            instance: 0,
            value: value.into(),
        }
    }

    /// Another instance.
    #[must_use]
    pub(crate) fn instance(mut self, instance: u8) -> Self {
        self.instance = instance;
        self
    }

    /// A grouped one.
    pub(crate) fn group(kind: u8, elements: &[Element]) -> Self {
        let mut value = Vec::new();
        encode(elements, &mut value);
        Self::new(kind, value)
    }

    /// The elements of a grouped one.
    pub fn as_group(&self) -> Result<Vec<Element>, MalformedElement> {
        decode(&self.value)
    }
}

/// Looking into lists of elements.
pub trait Elements {
    /// The first of this type and instance.
    fn find(&self, kind: u8, instance: u8) -> Option<&Element>;
}

impl Elements for [Element] {
    fn find(&self, kind: u8, instance: u8) -> Option<&Element> {
        self.iter()
            .find(|element| (element.kind, element.instance) == (kind, instance))
    }
}

/// Appends them as on the wire.
pub(crate) fn encode(elements: &[Element], out: &mut Vec<u8>) {
    for element in elements {
        let length = u16::try_from(element.value.len()).expect("values are far below 64 KiB");
        out.push(element.kind);
        out.extend(length.to_be_bytes());
        out.push(element.instance & 0x0f);
        out.extend(&element.value);
    }
}

/// All that the bytes are.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Vec<Element>, MalformedElement> {
    let mut elements = Vec::new();
    while !bytes.is_empty() {
        let Some(([kind, high, low, instance], after)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(MalformedElement::Rest(bytes.len()));
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = after
            .split_at_checked(length)
            .ok_or(MalformedElement::CutOff(*kind))?;
        elements.push(Element {
            kind: *kind,
            instance: instance & 0x0f,
            value: value.to_vec(),
        });
        bytes = rest;
    }
    Ok(elements)
}
