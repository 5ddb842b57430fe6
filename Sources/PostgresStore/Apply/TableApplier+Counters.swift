import SyncCore

/// Counters between the database, which keeps what a row shows and what was added, and merging.
extension TableApplier {
  /// What was inserted of each counter is what the row shows less the contributions.
  func states(_ images: [RowShape.Image?], _ shape: RowShape) throws -> [RowState<RowValues>?] {
    var inserted: [[[UInt8]]] = images.map { _ in shape.counters.map { _ in [UInt8(ascii: "0")] } }
    for (place, at) in shape.counters.enumerated() {
      let live = images.indices.filter { images[$0]?.values != nil }
      let shown = live.map { (images[$0]?.values?[at] ?? nil) ?? [UInt8(ascii: "0")] }
      let sums = live.map { index in
        (images[index]?.contributions ?? []).filter { $0.column == at }.map(\.sum)
      }
      for (index, amount) in zip(live, try self.inserted(shown, less: sums)) { inserted[index][place] = amount }
    }
    return zip(images, inserted).map { image, inserted in image.map { shape.state($0, inserted: inserted) } }
  }

  /// What the counters of rows that are alive show: what was inserted and every contribution; by the row's place in
  /// `rows`, then by column.
  ///
  /// - Parameter rows: with the copies that they were made of.
  func shown(
    _ rows: [(state: RowState<RowValues>, copies: [RowValues?])], _ shape: RowShape
  ) throws -> [Int: [Int: [UInt8]]] {
    var out: [Int: [Int: [UInt8]]] = [:]
    for at in shape.counters {
      let live = rows.indices.filter { rows[$0].state.isAlive }
      let inserted = live.map { (rows[$0].state.counters[at]?.inserted.first ?? nil) ?? [UInt8(ascii: "0")] }
      let sums = live.map { index in shape.contributions(of: rows[index].state).filter { $0.column == at }.map(\.sum) }
      let copies = live.map { index in rows[index].copies.compactMap { $0?[at] } }
      for (index, amount) in zip(live, try shown(inserted, plus: sums, placesOf: copies)) {
        out[index, default: [:]][at] = amount
      }
    }
    return out
  }
}
