<?xml version="1.0" encoding="UTF-8"?>
<tileset version="1.10" tiledversion="1.11.0" name="frontier" tilewidth="16" tileheight="16" tilecount="12" columns="12">
 <image source="frontier.png" width="192" height="16"/>
 <tile id="0" type="grass">
  <properties>
   <property name="color" type="color" value="#ff5a8f3c"/>
   <property name="solid" type="bool" value="false"/>
  </properties>
 </tile>
 <tile id="1" type="meadow">
  <properties>
   <property name="color" type="color" value="#ff77a84a"/>
   <property name="solid" type="bool" value="false"/>
  </properties>
 </tile>
 <tile id="2" type="path">
  <properties>
   <property name="color" type="color" value="#ffb89b6a"/>
   <property name="solid" type="bool" value="false"/>
  </properties>
 </tile>
 <tile id="3" type="sand">
  <properties>
   <property name="color" type="color" value="#ffd8c690"/>
   <property name="solid" type="bool" value="false"/>
  </properties>
 </tile>
 <tile id="4" type="water">
  <properties>
   <property name="color" type="color" value="#ff3f7fb5"/>
   <property name="solid" type="bool" value="true"/>
  </properties>
 </tile>
 <tile id="5" type="rock">
  <properties>
   <property name="color" type="color" value="#ff7a7672"/>
   <property name="solid" type="bool" value="true"/>
  </properties>
 </tile>
 <tile id="6" type="wall">
  <properties>
   <property name="color" type="color" value="#ff6b4f3a"/>
   <property name="solid" type="bool" value="true"/>
  </properties>
 </tile>
 <tile id="7" type="floor">
  <properties>
   <property name="color" type="color" value="#ffa58a64"/>
   <property name="solid" type="bool" value="false"/>
  </properties>
 </tile>
 <tile id="8" type="bridge">
  <properties>
   <property name="color" type="color" value="#ff8a6a45"/>
   <property name="solid" type="bool" value="false"/>
  </properties>
 </tile>
 <tile id="9" type="tree">
  <properties>
   <property name="color" type="color" value="#ff2f5d2a"/>
   <property name="solid" type="bool" value="true"/>
  </properties>
 </tile>
 <tile id="10" type="field">
  <properties>
   <property name="color" type="color" value="#ffa8a04a"/>
   <property name="solid" type="bool" value="false"/>
  </properties>
 </tile>
 <tile id="11" type="roof">
  <properties>
   <property name="color" type="color" value="#ff8c3b32"/>
   <property name="solid" type="bool" value="true"/>
  </properties>
 </tile>
</tileset>
