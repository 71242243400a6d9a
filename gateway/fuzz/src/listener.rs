pub(crate) mod http1;
pub(crate) mod proxy_header;
