mod lab;
mod oracle;
