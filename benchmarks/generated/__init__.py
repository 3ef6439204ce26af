"""Generated miniatures: six small datasets in the authors' layouts, label files, units and orientations.

Numbers made with them compare methods with each other; they are not comparable with published ones.
"""
