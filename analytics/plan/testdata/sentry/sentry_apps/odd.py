from kitchen import analytics

TEXT = """
class NotAClass(analytics.Event):
    type = "not.an.event"
"""


class OddEvent(analytics.Event):
    type = "odd-one.Created"
    attributes = ()


class SameEvent(analytics.Event):
    type = "garden.planted"
