//! IP addresses and networks, to and from the format of inet and cidr.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use super::CodecError;

// The families are PostgreSQL's own numbers, not the operating system's.
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 3;

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// Reads `address` or `address/prefix`.
pub(super) fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (addr, prefix) = match text.split_once('/') {
        Some((addr, prefix)) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
            (addr, Some(prefix.parse().ok()?))
        }
        Some(_) => return None,
        None => (text, None),
    };
    let addr: IpAddr = addr.parse().ok()?;
    Some((addr, prefix.unwrap_or(bits(addr)))).filter(|(addr, prefix)| *prefix <= bits(*addr))
}

/// The address has no bits set beyond its prefix.
fn is_network(addr: IpAddr, prefix: u8) -> bool {
    let (value, host_bits) = match addr {
        IpAddr::V4(addr) => (u128::from(addr.to_bits()), 32 - prefix),
        IpAddr::V6(addr) => (addr.to_bits(), 128 - prefix),
    };
    value & !u128::MAX.checked_shl(host_bits.into()).unwrap_or(0) == 0
}

/// Writes an address; a cidr must be a network.
pub(super) fn encode(
    addr: IpAddr,
    prefix: u8,
    cidr: bool,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    if prefix > bits(addr) {
        return Err(CodecError::out_of_range(format!(
            "{addr}/{prefix} does not fit type inet: the prefix is too long"
        )));
    }
    if cidr && !is_network(addr, prefix) {
        return Err(CodecError::out_of_range(format!(
            "{addr}/{prefix} does not fit type cidr: it has bits set beyond its prefix"
        )));
    }
    out.put_u8(if addr.is_ipv4() {
        FAMILY_IPV4
    } else {
        FAMILY_IPV6
    });
    out.put_u8(prefix);
    out.put_u8(u8::from(cidr));
    match addr {
        IpAddr::V4(addr) => {
            out.put_u8(4);
            out.put_slice(&addr.octets());
        }
        IpAddr::V6(addr) => {
            out.put_u8(16);
            out.put_slice(&addr.octets());
        }
    }
    Ok(())
}

/// Reads address and prefix.
pub(super) fn decode(raw: &[u8]) -> Option<(IpAddr, u8)> {
    let (&[family, prefix, _, length], octets) = raw.split_first_chunk::<4>()?;
    if usize::from(length) != octets.len() {
        return None;
    }
    let addr = match family {
        FAMILY_IPV4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        FAMILY_IPV6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => return None,
    };
    (prefix <= bits(addr)).then_some((addr, prefix))
}
