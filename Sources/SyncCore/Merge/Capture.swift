/// A row as an application sees it.
package struct RowImage<Value: Equatable & Sendable>: Equatable, Sendable {
  /// The registers' values, by column.
  package var values: [Int: Value]
  /// What the counters show, by column: inserted amount and all contributions.
  package var shown: [Int: Value]

  package init(values: [Int: Value], shown: [Int: Value]) {
    self.values = values
    self.shown = shown
  }
}

extension Counter where Value: AdditiveArithmetic {
  /// Everything that was added since the row was inserted.
  package var added: Value { contributions.values.reduce(.zero) { $0 + $1.sum } }
}

/// How a statement of an application becomes a version of its row. `PostgresStore.Capture` says the same in SQL, because
/// it runs in the application's own transaction; a test holds the two against each other.
extension RowState where Value: AdditiveArithmetic {
  /// nil: deleted.
  package var image: RowImage<Value>? {
    guard isAlive else { return nil }
    return RowImage(values: registers.mapValues(\.value), shown: counters.mapValues { $0.inserted + $0.added })
  }

  /// The version of a row that a statement inserted, or wrote as a whole: every register bears the new dot. Contributions
  /// outlive the row, so that those not seen yet still count; the amount inserted is what is shown without them.
  package static func inserted(
    _ image: RowImage<Value>, over before: RowState?, dot: Dot, now: Stamp
  ) -> RowState {
    let stamp = Stamp.next(now: now, after: before?.latest.stamp)
    var vector = before?.vector ?? VersionVector()
    vector.insert(dot)
    var counters = before?.counters ?? [:]
    for (column, shown) in image.shown {
      var counter = counters[column] ?? Counter(inserted: .zero)
      counter.inserted = shown - counter.added
      counters[column] = counter
    }
    return RowState(
      vector: vector, alive: Register(value: true, dot: dot, stamp: stamp),
      registers: image.values.mapValues { Register(value: $0, dot: dot, stamp: stamp) }, counters: counters)
  }

  /// The version of a row that a statement deleted.
  package func deleted(dot: Dot, now: Stamp) -> RowState {
    var vector = vector
    vector.insert(dot)
    return RowState(
      vector: vector, alive: Register(value: false, dot: dot, stamp: Stamp.next(now: now, after: latest.stamp)),
      counters: counters.mapValues { Counter(inserted: .zero, contributions: $0.contributions) })
  }

  /// The version of a living row that a statement updated; nil: nothing changed, which is no write.
  ///
  /// `images`: each that the statement made of it, in order (a cascade may update a row several times). Of a counter the
  /// differences count, whatever the statement said: an assignment is the difference that it makes. Another register
  /// was written if any image changed it, merged by row all of them; a counter's change moves no register.
  package func updated(
    _ images: [RowImage<Value>], dot: Dot, now: Stamp, granularity: Granularity
  ) -> RowState? {
    guard let first = image, let last = images.last else { return nil }
    var row = self
    row.vector.insert(dot)
    for (column, counter) in counters {
      let difference = (last.shown[column] ?? .zero) - (first.shown[column] ?? .zero)
      guard difference != .zero else { continue }
      let sum = counter.contributions[dot.actor]?.sum ?? .zero
      row.counters[column]?.contributions[dot.actor] = .init(sum: sum + difference, n: dot.n)
    }
    var written: Set<Int> = []
    for (before, after) in zip([first] + images, images) {
      written.formUnion(after.values.keys.filter { before.values[$0] != after.values[$0] })
    }
    guard !written.isEmpty || row.counters != counters else { return nil }
    let stamp = Stamp.next(now: now, after: latest.stamp)
    for (column, value) in last.values where granularity == .row ? !written.isEmpty : written.contains(column) {
      row.registers[column] = Register(value: value, dot: dot, stamp: stamp)
    }
    if granularity == .row, !written.isEmpty { row.alive = Register(value: true, dot: dot, stamp: stamp) }
    return row
  }
}
