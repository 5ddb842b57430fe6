package import SyncCore

/// How a store writes row states down and reads them back (staged parts, quarantined rows): the wire's codec,
/// handed in, so that adapters do not know the wire.
package struct RowCoder: Sendable {
  package var encode: @Sendable (RowBlock) throws -> [UInt8]
  package var decode: @Sendable ([UInt8]) throws -> [RowBlock]

  package init(
    encode: @escaping @Sendable (RowBlock) throws -> [UInt8],
    decode: @escaping @Sendable ([UInt8]) throws -> [RowBlock]
  ) {
    self.encode = encode
    self.decode = decode
  }
}
