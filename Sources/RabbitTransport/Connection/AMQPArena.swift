import CRabbitMQ
import Glibc

/// Texts that a library call may read until it returns.
struct AMQPArena: ~Copyable {
  private var blocks: [UnsafeMutableRawPointer] = []

  deinit { for block in blocks { free(block) } }

  mutating func bytes(_ text: String) -> amqp_bytes_t {
    var text = text
    return text.withUTF8 { utf8 in
      guard let start = utf8.baseAddress, !utf8.isEmpty, let block = malloc(utf8.count) else {
        return amqp_bytes_t(len: 0, bytes: nil)
      }
      memcpy(block, start, utf8.count)
      blocks.append(block)
      return amqp_bytes_t(len: utf8.count, bytes: block)
    }
  }

  mutating func table(_ entries: [(String, AMQPValue)]) -> amqp_table_t {
    guard !entries.isEmpty, let block = calloc(entries.count, MemoryLayout<amqp_table_entry_t>.stride) else {
      return amqp_table_t(num_entries: 0, entries: nil)
    }
    blocks.append(block)
    let table = block.bindMemory(to: amqp_table_entry_t.self, capacity: entries.count)
    for (index, (name, value)) in entries.enumerated() {
      let key = bytes(name)
      table[index] =
        switch value {
        case .text(let text): hub_text_entry(key, bytes(text))
        case .number(let number): hub_number_entry(key, number)
        case .truth(let truth): hub_boolean_entry(key, truth ? 1 : 0)
        }
    }
    return amqp_table_t(num_entries: Int32(entries.count), entries: table)
  }
}

/// A value in a table of arguments or headers.
enum AMQPValue: Hashable, Sendable {
  case text(String)
  case number(Int64)
  case truth(Bool)
}

extension String {
  /// Bytes of the broker; what is no UTF-8 is replaced.
  init(_ bytes: amqp_bytes_t) {
    self.init(decoding: UnsafeRawBufferPointer(start: bytes.bytes, count: bytes.len), as: UTF8.self)
  }
}
